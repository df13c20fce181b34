// The book's script: theme, menu, contents, copying, formulas, search. Without it all can be read.
const root = document.currentScript.dataset.root;
const page = document.documentElement;
const wide = matchMedia("(min-width: 78rem)");

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Light and dark
const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return page.dataset.theme ? page.dataset.theme === "dark" : system.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
}

theme.onclick = () => {
  page.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("theme", page.dataset.theme); } catch {}
  nameTheme();
};
system.onchange = nameTheme;
nameTheme();

// The list of pages, behind a button on small screens
const menu = document.getElementById("menu");
const book = document.getElementById("book");

function openMenu(open) {
  menu.setAttribute("aria-expanded", open);
  book.classList.toggle("open", open);
}

menu.onclick = () => openMenu(menu.getAttribute("aria-expanded") !== "true");
const current = book.querySelector("[aria-current]");
if (current) book.scrollTop = current.offsetTop - book.clientHeight / 3;

// The contents of the page: open beside it, folded above it
const contents = document.querySelector(".contents details");
if (contents) {
  wide.onchange = () => { contents.open = wide.matches; };
  wide.onchange();
  const links = new Map();
  for (const link of contents.querySelectorAll("a")) links.set(link.hash.slice(1), link);
  const headings = [...links.keys()].map((id) => document.getElementById(decodeURIComponent(id)));
  const mark = () => {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120);
    for (const link of links.values()) link.removeAttribute("aria-current");
    if (passed.length) links.get(passed.at(-1).id)?.setAttribute("aria-current", "location");
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// Formulas
if (window.renderMathInElement) {
  const pairs = [["$$", true], ["$", false]];
  const delimiters = pairs.map(([sign, display]) => ({ left: sign, right: sign, display }));
  renderMathInElement(document.getElementById("content"), { delimiters });
  for (const nav of document.querySelectorAll(".contents")) renderMathInElement(nav, { delimiters });
}

// Code: copied by a button
for (const code of document.querySelectorAll("pre.code:not(.signature *)")) {
  const button = make("button", { type: "button", className: "copy", textContent: "Copy" });
  button.onclick = async () => {
    await copy(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
  const box = make("div", { className: "box" });
  code.replaceWith(box);
  box.append(code, button);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed to pages from the file system in some browsers
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

// What is wider than its box can be scrolled by keys
function reachable() {
  for (const box of document.querySelectorAll("pre, .scroll, .katex-display")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("resize", reachable);
document.fonts.ready.then(reachable);
reachable();

// Headings: a link to each
for (const heading of document.querySelectorAll("main h2[id], main h3[id]")) {
  const label = `Link to: ${heading.textContent}`;
  const link = make("a", { className: "anchor", href: `#${heading.id}`, textContent: "#" });
  link.setAttribute("aria-label", label);
  heading.append(link);
}

// Search
const field = document.getElementById("search");
const found = document.getElementById("found");
let index;

function load() {
  index ??= new Promise((resolve, reject) => {
    const source = `${root}/assets/search.js`;
    document.head.append(make("script", { src: source, onload: resolve, onerror: reject }));
  }).then(() => window.SEARCH.map(([path, title, heading, id, text]) => ({
    path, title, heading, id, text,
    titleLow: title.toLowerCase(),
    headingLow: heading.toLowerCase(),
    textLow: text.toLowerCase(),
  })));
  return index;
}

function score(entry, words, phrase) {
  let points = 0;
  for (const word of words) {
    const inTitle = entry.titleLow.includes(word);
    const inHeading = entry.headingLow.includes(word);
    if (!inTitle && !inHeading && !entry.textLow.includes(word)) return 0;
    points += 1 + 4 * inTitle + 6 * inHeading;
  }
  if (entry.headingLow.includes(phrase)) points += 12;
  if (entry.titleLow.includes(phrase)) points += entry.heading ? 4 : 40; // the page itself first
  if (entry.textLow.includes(phrase)) points += 4;
  if (entry.path.startsWith("notebooks/")) points += 8;
  return points;
}

async function search() {
  const phrase = field.value.trim().toLowerCase();
  const words = phrase.split(/\s+/).filter(Boolean);
  if (!words.length) return close();
  const entries = await load();
  if (field.value.trim().toLowerCase() !== phrase) return; // typed on meanwhile
  const pages = {}; // how often each is among them: three times at most
  const best = entries
    .map((entry) => ({ entry, points: score(entry, words, phrase) }))
    .filter((hit) => hit.points)
    .sort((a, b) => b.points - a.points)
    .filter(({ entry }) => (pages[entry.path] = (pages[entry.path] ?? 0) + 1) <= 3)
    .slice(0, 12);
  const list = make("ul", {}, ...best.map(({ entry }) => item(entry, words)));
  const count = best.length ? "" : `Nothing holds all of: ${words.join(", ")}`;
  found.replaceChildren(best.length ? list : make("p", { textContent: count }));
  found.hidden = false;
}

function item(entry, words) {
  const place = Math.max(0, entry.textLow.indexOf(words[0]) - 50);
  const start = place && entry.text.indexOf(" ", place) + 1;
  const snippet = (start ? "... " : "") + entry.text.slice(start, start + 150).replace(/\s\S*$/, "");
  const href = `${root}/${entry.path}${entry.id && "#"}${entry.id}`;
  const name = make("b", { textContent: entry.title });
  const heading = entry.heading ? ` · ${entry.heading}` : "";
  return make("li", {}, make("a", { href }, name, heading, make("small", {}, ...marked(snippet, words))));
}

function marked(text, words) {
  const safe = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const pieces = text.split(new RegExp(`(${safe.join("|")})`, "i"));
  return pieces.map((piece, i) => (i % 2 ? make("mark", { textContent: piece }) : piece));
}

function close() {
  found.hidden = true;
}

field.onfocus = load;
field.oninput = search;
document.addEventListener("click", (event) => {
  if (!event.target.closest("search")) close();
  if (event.target.closest("#book a")) openMenu(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, textarea")) {
    event.preventDefault();
    field.focus();
  }
  if (event.key === "Escape") {
    close();
    openMenu(false);
  }
  const links = [...found.querySelectorAll("a")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && !found.hidden && event.target.closest("search")) {
    event.preventDefault();
    const place = links.indexOf(document.activeElement) + step;
    (links[place] ?? field).focus();
  }
  if (event.key === "Enter" && event.target === field) links[0]?.click();
});
