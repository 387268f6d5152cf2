/* The choice of an image: from the test set, drawn, or from a file. */
"use strict";
(() => {
  const { html, fill, parts } = window.dianLive;
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const SIDE = 28, MOST_BYTES = 5e6, MOST_PIXELS = 24e6;
  const TEXT = {
    large: tr("The file has {size} MB; at most 5 MB can be read."),
    noImage: tr("The file is not an image that this browser can read."),
    pixels: tr("The image has {width} x {height} pixels, which is too many."),
    thumb: tr("{name}, test image {index}"),
    image: tr("Image"),
    drawing: tr("Your drawing"),
    field: tr("Drawing field: the arrow keys move the pen, the space bar paints"),
    ownDrawing: tr("your drawing"),
    ownImage: tr("your image"),
    clear: tr("Clear"),
    file: tr("Image file"),
    own: tr("Draw or open an image"),
    hint: tr("The networks were trained on light clothes on a dark background; this page shows "
      + "the images with inverted colors. An opened image never leaves this page."),
  };

  /** Read the image of a file as 28 x 28 bytes, or throw an error that says why not. */
  const fromFile = async (file) => {
    const size = (file.size / 1e6).toFixed(1);
    if (file.size > MOST_BYTES) throw new Error(fill(TEXT.large, { size }));
    let image;
    try { image = await createImageBitmap(file); } catch {
      throw new Error(TEXT.noImage);
    }
    if (image.width * image.height > MOST_PIXELS) {
      throw new Error(fill(TEXT.pixels, image));
    }
    const canvas = html("canvas", { width: SIDE, height: SIDE });
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, SIDE, SIDE); // transparent parts become black
    const scale = SIDE / Math.max(image.width, image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    context.drawImage(image, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
    image.close();
    const { data } = context.getImageData(0, 0, SIDE, SIDE);
    return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => Math.round(
      0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]));
  };

  /** Return the choice of an image; `picked` receives its pixels, label and name. */
  const imagePicker = ({ tensors, labels, index, classes }, picked) => {
    const size = SIDE * SIDE;
    const pixels = labels.map((_, i) => tensors.images.subarray(size * i, size * (i + 1)));
    const problem = html("p", { role: "status", className: "live-told" });
    const thumbs = pixels.map((bytes, i) => {
      const name = fill(TEXT.thumb, { name: classes[labels[i]], index: index[i] });
      const canvas = html("canvas", { width: SIDE, height: SIDE, "aria-hidden": "true" });
      const context = canvas.getContext("2d"), image = context.createImageData(SIDE, SIDE);
      bytes.forEach((v, k) => image.data.set([255 - v, 255 - v, 255 - v, 255], 4 * k));
      context.putImageData(image, 0, 0);
      const thumb = html("button", { type: "button", title: name, "aria-label": name }, canvas);
      thumb.addEventListener("click", () => choose(i));
      return thumb;
    });
    const mark = (chosen) => thumbs.forEach((thumb, i) =>
      thumb.setAttribute("aria-pressed", i === chosen));
    const choose = (i) => {
      mark(i);
      problem.textContent = "";
      picked({ pixels: pixels[i], label: labels[i], name: classes[labels[i]] });
    };

    const drawn = new Uint8Array(size);
    const field = parts.picture(TEXT.drawing, SIDE, SIDE), { canvas } = field;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", TEXT.field);
    canvas.tabIndex = 0;
    let x = SIDE / 2, y = SIDE / 2; // the pen, which is shown while the field has the focus
    const show = () => field.paint((i) => (i === SIDE * y + x && document.activeElement === canvas
      ? [220, 80, 0] : parts.gray(drawn[i] / 255)));
    const dab = () => {
      for (let v = 0; v < SIDE; v++) {
        for (let u = 0; u < SIDE; u++) {
          const near = Math.max(0, 1.8 - Math.hypot(u - x, v - y));
          drawn[SIDE * v + u] = Math.min(255, drawn[SIDE * v + u] + 140 * Math.min(1, near));
        }
      }
      show();
    };
    const use = () => {
      mark(-1);
      picked({ pixels: drawn.slice(), label: null, name: TEXT.ownDrawing });
    };
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      const at = (v) => Math.min(SIDE - 1, Math.max(0, Math.floor(v)));
      x = at((event.clientX - box.left) / box.width * SIDE);
      y = at((event.clientY - box.top) / box.height * SIDE);
      dab();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      place(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) place(event);
    });
    canvas.addEventListener("lostpointercapture", use); // the button is up, or the touch ended
    canvas.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step && event.key !== " ") return;
      event.preventDefault();
      if (step) {
        [x, y] = [(x + step[0] + SIDE) % SIDE, (y + step[1] + SIDE) % SIDE];
        show();
      } else { dab(); use(); }
    });
    for (const when of ["focus", "blur"]) canvas.addEventListener(when, show);
    const clear = parts.button(TEXT.clear, () => { drawn.fill(0); show(); use(); });
    show();

    const file = html("input", { type: "file", accept: "image/*" });
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      try {
        const read = await fromFile(file.files[0]);
        problem.textContent = "";
        mark(-1);
        picked({ pixels: read, label: null, name: TEXT.ownImage });
      } catch (error) { problem.textContent = error.message; }
      file.value = "";
    });
    const own = parts.fold(TEXT.own, html("p", { textContent: TEXT.hint }),
      html("div", { className: "live-own" }, field.box, clear),
      parts.labelled(TEXT.file, file));
    const box = html("div", { className: "live-picker" },
      html("div", { className: "live-thumbs", role: "group", "aria-label": TEXT.image }, ...thumbs),
      own, problem);
    return { box, choose };
  };

  window.dianLive.imagePicker = imagePicker;
})();
