const MARK = "#D55E00";
const VIRIDIS = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37],
];

const $ = (id) => document.getElementById(id);

/* The colour of a number from 0 to 1. */
function viridis(t) {
  const at = Math.min(Math.max(t, 0), 1) * (VIRIDIS.length - 1);
  const i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[i].map((low, c) => Math.round(low + (VIRIDIS[i + 1][c] - low) * (at - i)));
}

const css = (rgb) => `rgb(${rgb})`;

/* The bytes that `pack` in explorers.py made to text. */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/* The brush of a canvas, cleared, as fine as the screen and no coarser than 2; in CSS pixels. */
function brush(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const dots = Math.max(window.devicePixelRatio, 2);
  canvas.width = Math.round(width * dots);
  canvas.height = Math.round(height * dots);
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots);
  pen.imageSmoothingEnabled = false;
  return { pen, width, height };
}

/* Small picture from bytes: `colour(i)` gives [red, green, blue] of dot i. */
function bitmap(width, height, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...colour(i), 255], 4 * i);
  pen.putImageData(image, 0, 0);
  return canvas;
}

/* A frame that is seen on dark and on light, kept inside of a canvas. */
function frame({ pen, width, height }, x, y, w, h) {
  const grow = Math.max(0, 5 - w / 2, 5 - h / 2); /* a small cell is framed from outside */
  const [left, top] = [Math.max(x - grow, 2), Math.max(y - grow, 2)];
  const right = Math.min(x + w + grow, width - 2);
  const bottom = Math.min(y + h + grow, height - 2);
  for (const [colour, line] of [["#fff", 4], [MARK, 2.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.strokeRect(left, top, right - left, bottom - top);
  }
}

/* Frame the cell of that number in a canvas of rows x columns. */
function frameCell(area, number, rows, columns) {
  const [w, h] = [area.width / columns, area.height / rows];
  frame(area, (number % columns) * w, Math.floor(number / columns) * h, w, h);
}

/* Whether what was chosen stays while the mouse moves on. */
let kept = false;

function keep(yes) {
  kept = yes;
  document.body.classList.toggle("kept", yes);
}

/*
 * Let people choose a cell of a canvas: hover or tap it, or use the arrow keys; with `keeps`, a
 * click keeps it, and another lets go. `now()` is the number of the chosen cell, below 0 if
 * none is; `choose(number)` is called with another.
 */
function picker(canvas, label, rows, columns, now, choose, keeps = true) {
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${label}: arrow keys move`);
  const cell = (event) => {
    const box = canvas.getBoundingClientRect();
    const part = (of, count) => Math.min(Math.max(Math.floor(of * count), 0), count - 1);
    const row = part((event.clientY - box.top) / box.height, rows);
    return row * columns + part((event.clientX - box.left) / box.width, columns);
  };
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || (keeps && kept)) return;
    if (cell(event) !== now()) choose(cell(event));
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && keeps) keep(!kept);
    choose(cell(event));
  });
  canvas.addEventListener("keydown", (event) => {
    const at = Math.max(now(), 0);
    const [row, column] = [Math.floor(at / columns), at % columns];
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, columns - 1],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    if (to[0] < 0 || to[0] >= rows || to[1] < 0 || to[1] >= columns) return;
    choose(to[0] * columns + to[1]);
  });
}

/* A colour scale from 0 to 1. */
function scale(canvas) {
  const { pen, width, height } = brush(canvas);
  for (let x = 0; x < width; x++) {
    pen.fillStyle = css(viridis(x / (width - 1)));
    pen.fillRect(x, 0, 1.5, height);
  }
}

/* A row of buttons, one for each name; `choose(i)` is called when one is pressed. */
function buttons(box, names, choose) {
  names.forEach((name, i) => {
    const button = document.createElement("button");
    button.textContent = name;
    button.onclick = () => choose(i);
    box.append(button);
  });
  return (chosen) =>
    [...box.children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
}

/* Draw now, and whenever the size changes. */
function start(draw) {
  document.querySelector("main").hidden = false;
  new ResizeObserver(draw).observe(document.documentElement);
  draw();
}
