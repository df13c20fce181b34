"""An explorer in a browser, as a person meets it."""

import re

# The frame has drawn what the mouse told it; a frame out of sight never draws
TOLD = "() => new Promise((done) => (requestAnimationFrame(done), setTimeout(done, 500)))"


class Explorer:
    """An explorer on a page: `frame` is its frame, by default the only one there is."""

    def __init__(self, page, frame=None):
        self.page, self.frame = page, frame or page.frames[1]

    def point(self, canvas, cell, grid, tap=False, click=False):
        """Point at the middle of a cell of a canvas, counted row by row."""
        box = self.place(self.frame.locator(canvas))
        x = box["x"] + (cell % grid[1] + 0.5) * box["width"] / grid[1]
        y = box["y"] + (cell // grid[1] + 0.5) * box["height"] / grid[0]
        if tap:
            self.page.touchscreen.tap(x, y)
        else:
            self.page.mouse.move(x, y)
        if click:
            self.page.mouse.click(x, y)
        self.frame.evaluate(TOLD)

    def place(self, area):
        """Where a canvas is in the window, once it is in sight and at rest."""
        area.evaluate("it => it.scrollIntoView({block: 'nearest', behavior: 'instant'})")
        box = area.bounding_box()
        for _ in range(100):
            self.page.wait_for_timeout(30)
            before, box = box, area.bounding_box()
            if box == before:
                break
        return box

    def press(self, button):
        self.frame.get_by_role("button", name=button, exact=True).click()

    def text(self, part="#says"):
        return self.frame.locator(part).inner_text()

    def numbers(self, part="#says"):
        return [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", self.text(part))]

    def colour(self, canvas, cell, grid):
        """The colour in a canvas a third into a cell, beside any mark of its middle."""
        row, column = (cell // grid[1] + 0.3) / grid[0], (cell % grid[1] + 0.3) / grid[1]
        return self.frame.evaluate(
            """([id, x, y]) => {
                const it = document.querySelector(id);
                const at = [x * it.width, y * it.height].map(Math.floor);
                return [...it.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
            }""",
            [canvas, column, row],
        )

    def overflow(self):
        """How much wider, and how much taller, the explorer is than its frame."""
        return self.frame.evaluate(
            """() => [document.documentElement.scrollWidth - innerWidth,
                      document.documentElement.scrollHeight - innerHeight]"""
        )
