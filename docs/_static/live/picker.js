/* Parts that the live figures share: controls, pictures, and the choice of an image. */
"use strict";
(() => {
  const { html, fill } = window.dianLive, SIDE = 28, LARGEST = 5e6, MOST = 24e6;
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
  let count = 0;

  const labelled = (label, control, ...more) => {
    control.id = `live-${++count}`;
    return html("div", { className: "interactive-control" },
      html("label", { for: control.id, textContent: label }), control, ...more);
  };
  const slider = (label, range, changed) => {
    const { value, ...limits } = range;
    const input = html("input", { type: "range", ...limits }), shown = html("output");
    const line = labelled(label, input, shown);
    shown.setAttribute("for", input.id);
    const set = (to) => {
      input.value = to;
      shown.textContent = input.value;
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => { set(input.value); changed(Number(input.value)); });
    set(value);
    return { line, input, set, get value() { return Number(input.value); } };
  };
  const select = (label, options, changed) => {
    const input = html("select");
    const list = Array.isArray(options) ? options : Object.entries(options);
    for (const [value, text] of list) {
      input.append(html("option", { value, textContent: text }));
    }
    input.addEventListener("change", () => changed(input.value));
    return { line: labelled(label, input), input };
  };
  const check = (label, checked, changed) => {
    const input = html("input", { type: "checkbox", checked });
    input.addEventListener("change", () => changed(input.checked));
    return { line: labelled(label, input), input };
  };
  const button = (label, pressed) => {
    const element = html("button", { type: "button", textContent: label });
    element.addEventListener("click", pressed);
    return element;
  };
  const words = () => html("p", { className: "interactive-words", "aria-live": "polite" });

  /** A picture of rows x columns points; paint gives [red, green, blue] of each. */
  const picture = (label, columns, rows) => {
    const canvas = html("canvas", {
      width: columns, height: rows, role: "img", "aria-label": label });
    const context = canvas.getContext("2d");
    const paint = (color) => {
      const image = context.createImageData(columns, rows);
      for (let i = 0; i < columns * rows; i++) image.data.set([...color(i), 255], 4 * i);
      context.putImageData(image, 0, 0);
    };
    return { box: html("div", { className: "live-picture" },
      html("p", { textContent: label, "aria-hidden": "true" }), canvas), canvas, paint };
  };
  const grey = (ink) => { const v = 255 * (1 - Math.min(1, Math.max(0, ink))); return [v, v, v]; };
  const signed = (v) => (v < 0 ? [255 * (1 + Math.max(-1, v)), 255 * (1 + 0.55 * Math.max(-1, v)), 255]
    : [255, 255 * (1 - 0.6 * Math.min(1, v)), 255 * (1 - Math.min(1, v))]);

  const bars = (names) => {
    const rows = names.map((name) => {
      const bar = html("span", { className: "live-bar" }), value = html("span");
      return { bar, value, row: html("div", {}, html("span", { textContent: name }),
        html("span", { className: "live-track" }, bar), value) };
    });
    const box = html("div", { className: "live-bars", role: "img" }, ...rows.map((r) => r.row));
    const show = (p, label) => {
      rows.forEach(({ bar, value }, i) => {
        bar.style.width = `${100 * p[i]}%`;
        value.textContent = p[i].toFixed(3);
      });
      box.setAttribute("aria-label", label);
    };
    return { box, show };
  };

  /** What is wrong with a file, in one line; or its image as bytes. */
  const fromFile = async (file) => {
    const size = (file.size / 1e6).toFixed(1);
    if (file.size > LARGEST) throw new Error(fill(TEXT.large, { size }));
    let image;
    try { image = await createImageBitmap(file); } catch {
      throw new Error(TEXT.noImage);
    }
    if (image.width * image.height > MOST) {
      throw new Error(fill(TEXT.pixels, image));
    }
    const canvas = html("canvas", { width: SIDE, height: SIDE });
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, SIDE, SIDE); // what is transparent becomes black
    const scale = SIDE / Math.max(image.width, image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    context.drawImage(image, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
    image.close();
    const { data } = context.getImageData(0, 0, SIDE, SIDE);
    return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => Math.round(
      0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]));
  };

  /** Buttons with the images of the test set, a field to draw in, and a file. */
  const picker = ({ tensors, labels, index, classes }, picked) => {
    const pixels = labels.map((_, i) => tensors.images.subarray(784 * i, 784 * (i + 1)));
    const told = html("p", { role: "status", className: "live-told" });
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
      told.textContent = "";
      picked({ pixels: pixels[i], label: labels[i], name: classes[labels[i]] });
    };

    const drawn = new Uint8Array(SIDE * SIDE);
    const field = picture(TEXT.drawing, SIDE, SIDE), { canvas } = field;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", TEXT.field);
    canvas.tabIndex = 0;
    let x = 14, y = 14, down = false;
    const show = () => field.paint((i) => (i === 28 * y + x && document.activeElement === canvas
      ? [220, 80, 0] : grey(drawn[i] / 255)));
    const dab = () => {
      for (let v = 0; v < SIDE; v++) {
        for (let u = 0; u < SIDE; u++) {
          const near = Math.max(0, 1.8 - Math.hypot(u - x, v - y));
          drawn[28 * v + u] = Math.min(255, drawn[28 * v + u] + 140 * Math.min(1, near));
        }
      }
      show();
    };
    const use = () => {
      mark(-1);
      picked({ pixels: drawn.slice(), label: null, name: TEXT.ownDrawing });
    };
    const place = (event) => {
      const box = canvas.getBoundingClientRect(), at = (v) => Math.min(27, Math.max(0, Math.floor(v)));
      x = at((event.clientX - box.left) / box.width * SIDE);
      y = at((event.clientY - box.top) / box.height * SIDE);
      dab();
    };
    canvas.addEventListener("pointerdown", (event) => {
      down = true;
      canvas.setPointerCapture(event.pointerId);
      place(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (down) place(event); });
    canvas.addEventListener("pointerup", () => { down = false; use(); });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step) [x, y] = [(x + step[0] + 28) % 28, (y + step[1] + 28) % 28];
      else if (event.key !== " ") return;
      event.preventDefault();
      if (step) show(); else { dab(); use(); }
    });
    for (const when of ["focus", "blur"]) canvas.addEventListener(when, show);
    const clear = button(TEXT.clear, () => { drawn.fill(0); show(); use(); });
    show();

    const file = html("input", { type: "file", accept: "image/*" });
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      try {
        const read = await fromFile(file.files[0]);
        told.textContent = "";
        mark(-1);
        picked({ pixels: read, label: null, name: TEXT.ownImage });
      } catch (error) { told.textContent = error.message; }
      file.value = "";
    });
    const own = html("details", {}, html("summary", { textContent: TEXT.own }),
      html("p", { textContent: TEXT.hint }),
      html("div", { className: "live-own" }, field.box, clear),
      labelled(TEXT.file, file));
    const box = html("div", { className: "live-picker" },
      html("div", { className: "live-thumbs", role: "group", "aria-label": TEXT.image }, ...thumbs),
      own, told);
    return { box, choose };
  };

  window.dianLive.parts = { slider, select, check, button, words, picture, grey, signed, bars,
    picker, fromFile, labelled };
})();
