"""Several processes for a notebook: they work together, and nothing that goes wrong hangs."""

import time

import pytest
import torch
import torch.distributed as dist

from vitcourse.lab.processes import Team


@pytest.fixture(scope="module")
def team():
    team = Team(2)
    yield team
    team.stop()


def sums(rank, world, values):
    print("of", world)
    mine = values[rank].clone()
    dist.all_reduce(mine)
    return {"mine": mine, "rank": rank}


def fails_alone(rank, world):
    if rank == 1:
        raise ValueError("no such image")
    dist.barrier()


def dies(rank, world):
    import os

    os._exit(7)


def waits(rank, world):
    import time

    time.sleep(60 * rank)


def test_a_team_works_together_more_than_once(team, capsys):
    values = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    for _ in range(2):
        one, other = team.run(sums, values)
        assert one["mine"].tolist() == other["mine"].tolist() == [11, 22]
        assert (one["rank"], other["rank"]) == (0, 1)
        assert capsys.readouterr().out == "process 0: of 2\nprocess 1: of 2\n"
    assert len({member.pid for member in team.members}) == 2


WRONG = {
    fails_alone: (RuntimeError, "process 1 stopped: ValueError: no such image"),
    dies: (RuntimeError, "ended with code 7"),
    waits: (TimeoutError, "after 2 s the processes have not"),
}


@pytest.mark.parametrize("function", WRONG, ids=lambda f: f.__name__)
def test_what_goes_wrong_is_said_and_the_team_begins_anew(team, function):
    team.run(sums, torch.ones(2, 2))
    members, (kind, words) = team.members, WRONG[function]
    begin = time.monotonic()
    with pytest.raises(kind, match=words):
        team.run(function, seconds=2 if function is waits else 60)
    assert time.monotonic() - begin < 30 and not team.members
    assert all(member.poll() is not None for member in members), "nothing is left behind"


def test_a_function_without_text_is_refused():
    with pytest.raises(ValueError, match="no text to send"):
        Team(2).run(print)


def test_processes_end_with_the_notebook(team):
    team.run(sums, torch.ones(2, 2))
    for member in team.members:
        member.stdin.close()  # as happens when the kernel ends
    assert [member.wait(timeout=30) for member in team.members] == [0, 0]
