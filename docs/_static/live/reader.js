/* A recurrent network reads an image row by row. The figure shows its hidden states, the class
   probabilities after each row, and the gradient of the loss with respect to each pixel. */
"use strict";
(() => {
  const { html, fill, parts, arithmetic, recurrent, imagePicker } = window.dianLive;
  const { argmax, rowsOf, softmax } = arithmetic;
  const TEXT = {
    image: tr("Image"),
    states: tr("Hidden state after each row"),
    gradient: tr("Gradient with respect to each pixel"),
    probabilities: tr("Class probabilities after row {t}: {name} {p}"),
    after: tr("After row {t} of 28: {name}, probability {p}."),
    decided: tr("This class is the most probable one from row {since} on. Row {jump} increased its "
      + "probability most, by {rise}."),
    longest: tr("Gradient of the loss of class {name} with respect to each pixel. "
      + "Row {row} has the largest norm."),
    rows: tr("Rows read"),
    play: tr("Read row by row"),
    stop: tr("Stop"),
  };

  /** Group the weights of a record by layer and direction. */
  const assemble = ({ cell, readout, layers, tensors }) => {
    const names = cell === "gru" ? ["W_ih", "W_hh", "b_ih", "b_hh"] : ["W_xh", "W_hh", "b_h"];
    return { cell, readout, W_hq: tensors.W_hq, b_q: tensors.b_q,
      layers: layers.map((directions) => directions.map((prefix) => Object.fromEntries(
        names.map((name) => [name, tensors[prefix + name]])))) };
  };
  /** The class probabilities after the first t rows. */
  const probabilities = (network, rows, t) =>
    softmax(recurrent.read(network, rows.slice(0, t)).logits);

  window.dianLive.reader = { assemble, probabilities };

  window.dianLive.figures.reader = ({ figure, box, facts, images, network: first, data, status }) => {
    const small = figure.dataset.size === "small", { classes } = images;
    let network = assemble(first), image, rows, timer = 0;
    let states, colors, known; // of the image: the states, their colors, the probabilities so far
    const shown = parts.picture(TEXT.image, 28, 28), words = parts.words();
    const stateMap = parts.picture(TEXT.states, 128, 28);
    const gradientMap = parts.picture(TEXT.gradient, 28, 28);
    const probability = parts.bars(classes);

    const after = (t) => known[t] ??= probabilities(network, rows, t);
    const drawStates = (t) => {
      const { canvas } = stateMap, width = states[0].length;
      if (canvas.width !== width) canvas.width = width;
      const context = canvas.getContext("2d"), drawn = context.createImageData(width, 28);
      colors ??= Uint8ClampedArray.from(
        states.flatMap((H) => Array.from(H, (v) => [...parts.signed(v), 255]).flat()));
      drawn.data.fill(255);
      drawn.data.set(colors.subarray(0, 4 * width * t));
      context.putImageData(drawn, 0, 0);
    };
    const drawGradient = () => {
      const label = image.label ?? argmax(after(28));
      const size = recurrent.gradient(network, rows, label).map((g) => g.map(Math.abs));
      const most = Math.max(...size.flatMap((g) => [...g])) || 1;
      gradientMap.paint((i) => parts.gray(size[Math.floor(i / 28)][i % 28] / most));
      const row = argmax(size.map((g) => Math.hypot(...g))) + 1;
      gradientMap.canvas.setAttribute("aria-label", fill(TEXT.longest, { name: classes[label], row }));
    };
    /** Say from which row on the class is the most probable one, and which row mattered most. */
    const decided = () => {
      const best = argmax(after(28));
      let since = 28, jump = 1, most = -1;
      while (since > 1 && argmax(after(since - 1)) === best) since--;
      for (let t = 2; t <= 28; t++) {
        const rise = after(t)[best] - after(t - 1)[best];
        if (rise > most) [most, jump] = [rise, t];
      }
      return fill(TEXT.decided, { since, jump, rise: most.toFixed(3) });
    };
    const show = (t) => {
      const p = after(t), best = argmax(p);
      shown.paint((i) => (Math.floor(i / 28) === t - 1 ? parts.signed(0.25 + image.pixels[i] / 255)
        : parts.gray(image.pixels[i] / 255 * (i < 28 * t ? 1 : 0.35))));
      if (!small) drawStates(t);
      const values = { t, name: classes[best], p: p[best].toFixed(3) };
      probability.show(p, fill(TEXT.probabilities, values));
      words.textContent = fill(TEXT.after, values) + (t === 28 ? ` ${decided()}` : "");
    };
    const readImage = () => {
      [known, colors] = [[], null];
      states = recurrent.read(network, rows).states;
      if (!small) drawGradient();
      show(slider.value);
    };

    const speak = (on) => words.setAttribute("aria-live", on ? "polite" : "off");
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      play.textContent = TEXT.play;
      speak(true);
    };
    const start = () => {
      speak(false); // a screen reader reads the last row only
      let t = 0;
      const next = () => {
        slider.set(++t);
        if (t === 28) stop();
        show(t);
      };
      next();
      // One frame would be enough for a row; the eye can follow this pace.
      timer = setInterval(next, matchMedia("(prefers-reduced-motion: reduce)").matches ? 400 : 120);
      play.textContent = TEXT.stop;
    };
    const play = parts.button(TEXT.play, () => { if (timer) stop(); else start(); });
    const slider = parts.slider(TEXT.rows, { min: 1, max: 28, value: 28 }, (t) => {
      stop();
      show(t);
    });
    const picker = imagePicker(images, (chosen) => {
      stop();
      image = chosen;
      rows = rowsOf(image.pixels);
      readImage();
    });
    const chooser = parts.networkSelect({ facts, data, status }, (chosen) => {
      stop();
      network = assemble(chosen);
      readImage();
    });

    stateMap.box.classList.add("live-wide");
    const pictures = small ? [shown.box] : [shown.box, gradientMap.box, stateMap.box];
    if (!small) box.append(picker.box, chooser.line);
    box.append(slider.line, play, html("div", { className: "live-pictures" }, ...pictures),
      probability.box, words);
    picker.choose(0);
    if (small) start();
  };
})();
