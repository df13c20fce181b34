"""For each lesson from 07 on: answers to its exercises that are right, and what its numbers are.

A module lessonNN.py holds

    RIGHT        {exercise: at least two right answers that are built differently}
    SOURCES      {exercise that is code: a plain solution, called `answer`, of one operation a line}
    EQUIVALENT   {(exercise, "line -> changed line"): why the change makes no difference}
    truth()      {beginning of a question: its answer, computed}
"""
