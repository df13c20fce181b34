/* Sets the formulas, fits each slide into its box, and starts reveal.js. */
(async () => {
  const slides = document.querySelector(".slides");
  const delimiters = [
    { left: "$$", right: "$$", display: true },
    { left: "$", right: "$", display: false },
  ];
  renderMathInElement(slides, { delimiters, ignoredClasses: ["notes"], throwOnError: false });
  for (const notes of slides.querySelectorAll(".notes"))  // MathML needs no style in its window
    renderMathInElement(notes, { delimiters, output: "mathml", throwOnError: false });

  slides.classList.add("measuring");
  await Promise.all([...document.fonts].map((font) => font.load()));
  document.querySelectorAll(".slide").forEach(fit);
  slides.classList.remove("measuring");

  /* A picture becomes as large as fits, an explorer likewise, and text smaller until it fits. */
  function fit(slide) {
    for (const picture of slide.querySelectorAll("img.picture")) {
      const box = picture.parentElement;
      const width = Number(picture.getAttribute("width")) || picture.naturalWidth / 2;
      const height = Number(picture.getAttribute("height")) || picture.naturalHeight / 2;
      const scale = Math.min(box.clientWidth / width, box.clientHeight / height, 2.5);
      picture.style.cssText = `width: ${width * scale}px; height: ${height * scale}px`;
    }
    for (const explorer of slide.querySelectorAll(".html")) {
      const best = [660, 720, 800, 900].map((width) => {
        explorer.style.width = `${width}px`;
        return { width, scale: Math.min(1150 / width, 620 / explorer.scrollHeight) };
      }).reduce((a, b) => (b.scale > a.scale ? b : a));
      explorer.style.cssText = `width: ${best.width}px; zoom: ${best.scale}`;
    }
    for (let size = 1; overflows(slide) && size > 0.5; size -= 0.04)
      slide.style.setProperty("--fit", size.toFixed(2));
  }

  function overflows(slide) {
    const box = slide.getBoundingClientRect();
    return [...slide.querySelectorAll("*:not(.katex-mathml *, .hide-tail, .hide-tail *)")].some((part) => {
      const { right, bottom } = part.getBoundingClientRect();
      return right > box.right - 60 || bottom > box.bottom - 48;
    });
  }

  /* Light or dark: as the system is, until someone chooses. */
  const system = matchMedia("(prefers-color-scheme: dark)");
  function change() {
    const root = document.documentElement.style;
    const dark = root.colorScheme ? root.colorScheme === "dark" : system.matches;
    root.colorScheme = dark ? "light" : "dark";
  }
  document.getElementById("theme").addEventListener("click", change);

  /* When the pointer leaves an explorer, the keys belong to the slides again. */
  document.addEventListener("pointermove", () => {
    if (document.activeElement.tagName !== "IFRAME") return;
    document.activeElement.blur();
    window.focus();
  });

  const laidOut = new Promise((done) => Reveal.on("pdf-ready", done));
  await Reveal.initialize({
    width: 1280, height: 720, margin: 0.02, maxScale: 4, center: false,
    hash: true, slideNumber: "c/t", transition: "none", pdfMaxPagesPerSlide: 1,
    defaultTiming: 60,  // and data-timing: the clock of the speaker's view shows the pace
    plugins: [RevealNotes],
  });
  Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Light or dark" }, change);
  if (Reveal.isPrintView()) await laidOut;
  document.documentElement.dataset.ready = "yes";
})();
