/* The figures that a reader can move. Each page brings its numbers in a
   <figure class="interactive" data-figure="name">, made by dian.interactive; what is
   drawn is plain SVG or canvas, what is moved is a plain control, and what is shown is
   also said in words. Without this script the figure stays hidden. */
"use strict";
(() => {
  const figures = {};

  /* --- What all of them are made of ------------------------------------------------ */
  const svg = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const html = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    Object.assign(element, attributes);
    element.append(...children);
    return element;
  };
  const drawing = (width, height, label) =>
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  let count = 0;
  const slider = (label, range, changed) => {
    const id = `interactive-${++count}`;
    const input = html("input", { type: "range", id, ...range });
    const shown = html("output");
    shown.htmlFor = id;
    const tell = () => {
      shown.textContent = changed(Number(input.value));
      // A value may be the place in a list: what stands there is read out, not the place.
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", tell);
    const line = html("div", { className: "interactive-control" },
      html("label", { htmlFor: id, textContent: label }), input, shown);
    return { line, tell, input };
  };
  const choice = (label, options, start, changed) => {
    const id = `interactive-${++count}`;
    const select = html("select", { id });
    select.append(...options.map((text, value) =>
      html("option", { value, textContent: text })));
    select.value = start;
    select.addEventListener("input", () => changed(Number(select.value)));
    return html("div", { className: "interactive-control" },
      html("label", { htmlFor: id, textContent: label }), select);
  };
  const words = () => {
    const line = html("p", { className: "interactive-words" });
    line.setAttribute("aria-live", "polite");
    return line;
  };

  /* --- Rotary embedding: each pair of features is a hand of a clock ------------------ */
  figures.rotary = (box, { omega }) => {
    const size = 110, r = 42;
    const picture = drawing(size * omega.length, size + 24, "Pairs of features as hands");
    const hands = omega.map((w, i) => {
      const x = size * (i + 0.5), y = size / 2;
      const hand = (name) => svg("line", { x1: x, y1: y, class: name });
      const key = hand("second"), query = hand("first");
      picture.append(svg("circle", { cx: x, cy: y, r, class: "frame" }), key, query,
        svg("text", { x, y: size + 14, "text-anchor": "middle" }, `pair ${i}`));
      return { x, y, w, key, query };
    });
    const told = words();
    let m = 0, n = 0;
    const draw = () => {
      let product = 0;
      for (const { x, y, w, key, query } of hands) {
        for (const [line, place] of [[query, m], [key, n]]) {
          line.setAttribute("x2", x + r * Math.cos(place * w));
          line.setAttribute("y2", y - r * Math.sin(place * w));
        }
        product += Math.cos((m - n) * w);
      }
      told.textContent = `Query (solid) at ${m}, key (dashed) at ${n}: offset ${m - n}, `
        + `product ${product.toFixed(3)} of ${omega.length}.`;
    };
    const of = (label, set) => slider(label, { min: 0, max: 100, value: 0 },
      (value) => { set(value); draw(); return value; });
    const query = of("Position of the query", (value) => { m = value; });
    const key = of("Position of the key", (value) => { n = value; });
    const both = html("button", { type: "button", textContent: "Move both by one" });
    both.addEventListener("click", () => {
      for (const part of [query, key]) { part.input.stepUp(); part.tell(); }
    });
    box.prepend(picture, query.line, key.line, both, told);
    query.tell(); key.tell();
  };

  /* --- Attention: a map of weights, and below it the row of one query ---------------- */
  const weightMap = (n, m, label) => {
    const left = 46, width = 320, cell = width / m, height = Math.min(cell, 26);
    const foot = n * height + 14, tall = 64; // top and height of the bars
    const picture = drawing(left + width + 6, foot + tall + 38, label);
    const map = svg("g", { class: "map" }), bars = svg("g");
    const marker = svg("rect", { x: left, width, height, class: "marker" });
    const say = (x, y, words, anchor = "middle") =>
      svg("text", { x, y, "text-anchor": anchor }, words);
    const upright = (y, words) => svg("text", {
      transform: `translate(11 ${y}) rotate(-90)`, "text-anchor": "middle" }, words);
    const top = say(left - 5, foot + 8, "", "end");
    picture.append(upright(n * height / 2, "query"), upright(foot + tall / 2, "weight"),
      top, say(left - 5, foot + tall, "0", "end"),
      say(left + width / 2, foot + tall + 33, "key"));
    for (let i = 0; i < n; i += n > 10 ? 5 : 1) {
      picture.append(say(left - 5, (i + 0.5) * height + 4, `${i}`, "end"));
    }
    for (let j = 0; j < m; j += m > 10 ? 5 : 1) {
      picture.append(say(left + (j + 0.5) * cell, foot + tall + 16, `${j}`));
    }
    picture.append(map, svg("rect", { x: left, y: foot, width, height: tall,
      class: "frame" }), bars, marker);
    // A masked key has a weight of exactly zero, and is crossed out; the dashed bars
    // are the weights to compare with.
    const draw = (weights, row, most, masked = () => false, others = []) => {
      map.replaceChildren(...weights.flatMap((line, i) => line.map((p, j) => {
        const x = left + j * cell, y = i * height;
        return masked(i, j)
          ? svg("path", { d: `M${x},${y + height}l${cell},${-height}`, class: "frame" })
          : svg("rect", { x, y, width: cell, height, class: "cell",
            "fill-opacity": p / most });
      })));
      marker.setAttribute("y", row * height);
      const bar = (p, j, name) => svg("rect", { x: left + j * cell + 1,
        y: foot + tall * (1 - p / most), width: cell - 2, height: tall * p / most,
        class: name });
      bars.replaceChildren(...weights[row].map((p, j) => bar(p, j, "bar")),
        ...others.map((p, j) => bar(p, j, "outline")));
      top.textContent = `${Number(most.toFixed(2))}`;
    };
    const follow = (rows) => map.parentNode.addEventListener("pointermove", (event) => {
      const place = map.getBoundingClientRect();
      const under = Math.floor((event.clientY - place.top) / place.height * n);
      if (under >= 0 && under < n && under !== Number(rows.input.value)) {
        rows.input.value = under;
        rows.tell();
      }
    });
    return { picture, draw, follow };
  };
  const topOf = (line) => {
    const most = Math.max(...line);
    return `its largest weight is ${most.toFixed(3)}, on key ${line.indexOf(most)}, and `
      + `the row sums to ${line.reduce((a, b) => a + b, 0).toFixed(2)}.`;
  };
  figures.attention = (box, { weights }) => {
    const n = weights[0].length;
    const map = weightMap(n, weights[0][0].length, "Attention weights of one head");
    const told = words();
    let head = 0, row = 0;
    const show = () => {
      map.draw(weights[head], row, Math.max(...weights[head].flat()));
      told.textContent = `Head ${head + 1}, query ${row}: ${topOf(weights[head][row])}`;
    };
    const heads = slider("Head", { min: 1, max: weights.length, value: 1 },
      (value) => { head = value - 1; show(); return value; });
    const rows = slider("Query", { min: 0, max: n - 1, value: 0 },
      (value) => { row = value; show(); return value; });
    map.follow(rows);
    box.prepend(map.picture, heads.line, rows.line, told);
    heads.tell(); rows.tell();
  };

  const softmax = (scores) => {
    const most = Math.max(...scores), powers = scores.map((s) => Math.exp(s - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  };

  /* --- Masks: the same scores under one mask or another ------------------------------ */
  figures.masks = (box, { scores, masks }) => {
    const names = Object.keys(masks), n = scores.length;
    const map = weightMap(n, scores[0].length, "Attention weights under a mask");
    const plain = scores.map(softmax), told = words();
    let name = names[0], row = Math.floor(n / 2);
    const show = () => {
      const allowed = masks[name];
      const weights = scores.map((line, i) => {
        const any = allowed[i].some(Boolean);
        return any ? softmax(line.map((s, j) => allowed[i][j] ? s : -Infinity))
          : line.map(() => 0);
      });
      map.draw(weights, row, 1, (i, j) => !allowed[i][j], plain[row]);
      const keys = allowed[row].flatMap((one, j) => one ? [j] : []);
      told.textContent = `Mask: ${name}. Query ${row} may attend to `
        + (keys.length ? `${keys.length > 1 ? "keys" : "key"} ${keys.join(", ")}: `
          + topOf(weights[row]) : "no key: its weights and its output are zero.");
    };
    const kinds = choice("Mask", names, names.indexOf(name),
      (value) => { name = names[value]; show(); });
    const rows = slider("Query", { min: 0, max: n - 1, value: row },
      (value) => { row = value; show(); return value; });
    map.follow(rows);
    box.prepend(map.picture, kinds, rows.line, told);
    rows.tell();
  };

  /* --- Softmax: weights, entropy and derivative against the spread of the scores ------ */
  figures.softmax = (box, { scores, dimensions }) => {
    const n = scores.length, width = 280, height = 210, left = 44, foot = 38;
    const y = (value) => 8 + (height - foot - 8) * (1 - value);
    const axes = (label, below, beside) => {
      const picture = drawing(width, height, label);
      picture.append(svg("text", { "text-anchor": "middle",
        transform: `translate(11 ${(height - foot) / 2}) rotate(-90)` }, beside));
      for (const value of [0, 0.5, 1]) {
        picture.append(svg("line", { x1: left, x2: width - 6, y1: y(value), y2: y(value),
          class: "grid" }), svg("text", { x: left - 5, y: y(value) + 4,
          "text-anchor": "end" }, `${value}`));
      }
      picture.append(svg("text", { x: (left + width) / 2, y: height - 5,
        "text-anchor": "middle" }, below));
      return picture;
    };
    const of = (spread) => {
      const p = softmax(scores.map((s) => s * spread));
      return { p, entropy: -p.reduce((sum, x) => sum + (x ? x * Math.log(x) : 0), 0),
        trace: 1 - p.reduce((sum, x) => sum + x * x, 0) };
    };
    const cell = (width - left - 6) / n;
    const weights = axes("Weights of the keys", "key, by decreasing score", "weight");
    for (let j = 0; j < n; j += 5) {
      weights.append(svg("text", { x: left + (j + 0.5) * cell, y: height - 21,
        "text-anchor": "middle" }, `${j}`));
    }
    const bars = svg("g");
    weights.append(bars);

    const ends = [-5, 5]; // powers of two
    const x = (spread) => left + (width - left - 6)
      * (Math.log2(spread) - ends[0]) / (ends[1] - ends[0]);
    const curves = axes("Entropy, and trace of the Jacobian",
      "standard deviation s of the scores", "entropy, trace");
    for (const [power, text] of [[-5, "1/32"], [-3, "1/8"], [-1, "1/2"], [1, "2"],
      [3, "8"], [5, "32"]]) {
      curves.append(svg("text", { x: x(2 ** power), y: height - 21,
        "text-anchor": power === 5 ? "end" : "middle" }, text));
    }
    const steps = Array.from({ length: 101 }, (_, i) =>
      2 ** (ends[0] + (ends[1] - ends[0]) * i / 100));
    const line = (name, value) => svg("polyline", { class: name,
      points: steps.map((s) => `${x(s)},${y(value(of(s)))}`).join(" ") });
    const here = svg("line", { y1: y(0), y2: y(1), class: "marker" });
    const points = [0, 1].map(() => svg("circle", { r: 4, class: "bar" }));
    curves.append(here, line("first", (found) => found.entropy / Math.log(n)),
      line("second", (found) => found.trace));
    [["first", `entropy / ln ${n}`], ["second", "trace of Jacobian"]].forEach(([name, text], i) => {
      const at = y(0.28 - 0.14 * i);
      curves.append(svg("line", { x1: left + 8, x2: left + 34, y1: at, y2: at, class: name }),
        svg("text", { x: left + 40, y: at + 4 }, text));
    });

    curves.append(...points);

    const told = words();
    const divisors = [["1 (no division)", () => 1, "not divided"],
      ["√dₖ", Math.sqrt, "divided by √dₖ"], ["dₖ", (d) => d, "divided by dₖ"]];
    let d = Math.max(0, dimensions.indexOf(64)), way = 0;
    const draw = () => {
      const size = dimensions[d], [, divisor, said] = divisors[way];
      const spread = Math.sqrt(size) / divisor(size), found = of(spread);
      bars.replaceChildren(...found.p.map((p, j) => svg("rect", {
        x: left + j * cell + 1, y: y(p), width: cell - 2, height: y(0) - y(p),
        class: "bar" })));
      for (const end of ["x1", "x2"]) here.setAttribute(end, x(spread));
      [found.entropy / Math.log(n), found.trace].forEach((value, i) => {
        points[i].setAttribute("cx", x(spread));
        points[i].setAttribute("cy", y(value));
      });
      told.textContent = `Dimension ${size}, ${said}: the scores have the standard `
        + `deviation s = ${Number(spread.toFixed(3))}. The largest weight is `
        + `${Math.max(...found.p).toFixed(2)}, the entropy is ${found.entropy.toFixed(2)} `
        + `of at most ${Math.log(n).toFixed(2)} nats, and the trace of the Jacobian is `
        + `${found.trace.toFixed(2)}.`;
    };
    const size = slider("Dimension dₖ of a key", { min: 0, max: dimensions.length - 1,
      value: d }, (value) => { d = value; draw(); return dimensions[d]; });
    const kinds = choice("Scores are divided by", divisors.map(([text]) => text), way,
      (value) => { way = value; draw(); });
    box.prepend(html("div", { className: "interactive-pair" }, weights, curves),
      size.line, kinds, told);
    size.tell();
  };

  /* --- Noising: real images at any step, always with the same noise ------------------ */
  figures.noising = (box, { images, side, alphaBar }) => {
    /* Numbers that look random and are the same at every visit (mulberry32). */
    let state = 1;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let z = Math.imul(state ^ (state >>> 15), 1 | state);
      z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
      return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform()))
      * Math.cos(2 * Math.PI * uniform());
    const noise = images.map((image) => image.map(normal));
    const gap = 2, canvas = html("canvas", {
      width: images.length * (side + gap) - gap, height: side });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Images with the noise of one step");
    const context = canvas.getContext("2d"), told = words();
    const draw = (t) => {
      const signal = Math.sqrt(alphaBar[t]), spread = Math.sqrt(1 - alphaBar[t]);
      images.forEach((image, k) => {
        const shown = context.createImageData(side, side);
        image.forEach((byte, i) => {
          const x = signal * (2 * byte / 255 - 1) + spread * noise[k][i];
          const grey = Math.round(255 * (Math.min(1, Math.max(-1, x)) + 1) / 2);
          shown.data.set([grey, grey, grey, 255], 4 * i);
        });
        context.putImageData(shown, k * (side + gap), 0);
      });
      told.textContent = `Step ${t}: ${(100 * signal).toFixed(1)} % of the amplitude is `
        + `left, and the noise has a standard deviation of ${spread.toFixed(3)}.`;
      return t;
    };
    const step = slider("Step", { min: 0, max: alphaBar.length - 1, value: 0 }, draw);
    box.prepend(canvas, step.line, told);
    step.tell();
  };

  /* --- Gradient against lag, for each gain and each scale of the input --------------- */
  figures.gradient = (box, { gains, spreads, curves }) => {
    const width = 480, height = 280, left = 52, foot = 38, gap = 4;
    const powers = curves.flat(2);
    const least = gap * Math.floor(Math.min(...powers) / gap);
    const most = gap * Math.ceil(Math.max(...powers) / gap);
    const picture = drawing(width, height, "Norm of the gradient against the lag");
    const lags = curves[0][0].length - 1;
    const x = (k) => left + (width - left - 8) * k / lags;
    const y = (power) => 8 + (height - foot - 8) * (most - power) / (most - least);
    for (let power = least; power <= most; power += gap) {
      picture.append(svg("line", { x1: left, x2: width - 8, y1: y(power), y2: y(power),
        class: "grid" }), svg("text", { x: left - 6, y: y(power) + 4,
        "text-anchor": "end" }, `1e${power}`));
    }
    for (let k = 0; k <= lags; k += 10) {
      picture.append(svg("text", { x: x(k), y: height - 20, "text-anchor": "middle" }, `${k}`));
    }
    picture.append(svg("text", { x: (left + width) / 2, y: height - 5,
      "text-anchor": "middle" }, "lag (steps)"));
    const line = svg("polyline", { class: "curve" });
    picture.append(line);
    const told = words();
    let i = Math.max(0, gains.indexOf(1)), j = Math.max(0, spreads.indexOf(1));
    const draw = () => {
      const curve = curves[i][j];
      line.setAttribute("points", curve.map((power, k) =>
        `${x(k)},${y(power)}`).join(" "));
      const end = curve[lags];
      told.textContent = `Gain ${gains[i]}, input of s.d. ${spreads[j]}: after ${lags} `
        + `steps the gradient is ${(10 ** end).toExponential(1)} times as long.`;
    };
    const gain = slider("Gain of the recurrent matrix",
      { min: 0, max: gains.length - 1, value: i },
      (value) => { i = value; draw(); return gains[i]; });
    const spread = slider("Standard deviation of the input",
      { min: 0, max: spreads.length - 1, value: j },
      (value) => { j = value; draw(); return spreads[j]; });
    box.prepend(picture, gain.line, spread.line, told);
    gain.tell(); spread.tell();
  };

  document.querySelectorAll("figure.interactive").forEach((box) => {
    const data = JSON.parse(box.querySelector("script").textContent);
    figures[box.dataset.figure](box, data);
    box.hidden = false;
  });
})();
