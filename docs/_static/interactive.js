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

  /* --- Attention: the row of weights under the pointer ------------------------------- */
  figures.attention = (box, { weights }) => {
    const n = weights[0].length, m = weights[0][0].length, cell = 15;
    const picture = drawing(cell * m, cell * (n + 4), "Attention weights of one head");
    const map = svg("g"), bars = svg("g"), marker = svg("rect", {
      x: 0, width: cell * m, height: cell, class: "marker" });
    picture.append(map, marker, bars);
    const told = words();
    let head = 0, row = 0;
    const show = () => {
      const largest = Math.max(...weights[head].flat());
      map.replaceChildren(...weights[head].flatMap((line, i) => line.map((p, j) =>
        svg("rect", { x: j * cell, y: i * cell, width: cell, height: cell,
          class: "cell", "fill-opacity": p / largest }))));
      const line = weights[head][row], top = Math.max(...line);
      marker.setAttribute("y", row * cell);
      bars.replaceChildren(...line.map((p, j) => {
        const height = 3 * cell * p / top;
        return svg("rect", { x: j * cell + 1, y: cell * (n + 4) - height,
          width: cell - 2, height, class: "bar" });
      }));
      const sum = line.reduce((a, b) => a + b, 0);
      told.textContent = `Head ${head + 1}, query ${row + 1} reads key `
        + `${line.indexOf(top) + 1} most, `
        + `with weight ${top.toFixed(3)}; the row sums to ${sum.toFixed(2)}.`;
    };
    const heads = slider("Head", { min: 1, max: weights.length, value: 1 },
      (value) => { head = value - 1; show(); return value; });
    const rows = slider("Query", { min: 1, max: n, value: 1 },
      (value) => { row = value - 1; show(); return value; });
    picture.addEventListener("pointermove", (event) => {
      const place = picture.getBoundingClientRect();
      const under = Math.floor((event.clientY - place.top) / place.height * (n + 4));
      if (under >= 0 && under < n && under !== row) {
        rows.input.value = under + 1;
        rows.tell();
      }
    });
    box.prepend(picture, heads.line, rows.line, told);
    heads.tell(); rows.tell();
  };

  /* --- A panel with labelled axes; the label of the upright one is above it --------- */
  const panel = (picture, { left, right, top, bottom, x, y, xTicks, yTicks, labels }) => {
    const px = (value) => left + (right - left) * (value - x[0]) / (x[1] - x[0]);
    const py = (value) => bottom - (bottom - top) * (value - y[0]) / (y[1] - y[0]);
    for (const [value, text] of yTicks) {
      picture.append(svg("line", { x1: left, x2: right, y1: py(value), y2: py(value),
        class: "grid" }), svg("text", { x: left - 5, y: py(value) + 4,
        "text-anchor": "end" }, text));
    }
    for (const [value, text] of xTicks) {
      picture.append(svg("line", { x1: px(value), x2: px(value), y1: bottom,
        y2: bottom + 4, class: "grid" }), svg("text", { x: px(value), y: bottom + 16,
        "text-anchor": "middle" }, text));
    }
    picture.append(
      svg("text", { x: (left + right) / 2, y: bottom + 31, "text-anchor": "middle" },
        labels[0]),
      svg("text", { x: 2, y: top - 14 }, labels[1]));
    return { px, py, line: (points) =>
      points.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" ") };
  };
  const powers = (least, most, gap) => {
    const ticks = [];
    for (let power = least; power <= most; power += gap) ticks.push([power, `1e${power}`]);
    return ticks;
  };
  const decimals = (value, digits) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");

  /* --- Noising: images at any timestep of a schedule, always with the same noise ----- */
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
    canvas.setAttribute("aria-label", "Images with the noise of one timestep");
    const context = canvas.getContext("2d"), told = words();

    const names = Object.keys(alphaBar), T = alphaBar[names[0]].length - 1;
    const power = (name, t) => Math.log10(alphaBar[name][t] / (1 - alphaBar[name][t]));
    const ends = names.flatMap((name) => [power(name, 1), power(name, T)]);
    const least = 3 * Math.floor(Math.min(...ends) / 3);
    const most = 3 * Math.ceil(Math.max(...ends) / 3);
    const picture = drawing(380, 214, "Signal-to-noise ratio against the timestep");
    const ticks = [0, 1, 2, 3, 4].map((k) => Math.round(k * T / 4));
    const { px, py, line } = panel(picture, { left: 38, right: 366, top: 28, bottom: 176,
      x: [0, T], y: [least, most], xTicks: ticks.map((t) => [t, `${t}`]),
      yTicks: powers(least, most, 3), labels: ["timestep t", "signal-to-noise ratio"] });
    const curves = names.map((name) => {
      const points = alphaBar[name].map((_, t) => [t, power(name, t)]).slice(1);
      const curve = svg("polyline", { points: line(points) });
      picture.append(curve);
      return curve;
    });
    names.forEach((name, k) => {
      const t = Math.round(0.6 * T);
      picture.append(svg("text", { x: px(t), y: py(power(name, t)) + (k ? -8 : 16),
        "text-anchor": k ? "start" : "end" }, name));
    });
    const place = svg("circle", { r: 5, class: "point" });
    picture.append(place);

    let name = names[0], t = Math.round(T / 5);
    const draw = () => {
      const left = alphaBar[name][t];
      const signal = Math.sqrt(left), spread = Math.sqrt(1 - left);
      images.forEach((image, k) => {
        const shown = context.createImageData(side, side);
        image.forEach((byte, i) => {
          const x = signal * (2 * byte / 255 - 1) + spread * noise[k][i];
          const grey = Math.round(255 * (Math.min(1, Math.max(-1, x)) + 1) / 2);
          shown.data.set([grey, grey, grey, 255], 4 * i);
        });
        context.putImageData(shown, k * (side + gap), 0);
      });
      curves.forEach((curve, k) =>
        curve.setAttribute("class", names[k] === name ? "curve" : "other"));
      place.setAttribute("cx", px(Math.max(1, t)));
      place.setAttribute("cy", py(power(name, Math.max(1, t))));
      told.textContent = `Timestep ${t}, ${name} schedule: `
        + `${(100 * signal).toFixed(1)} % of the amplitude is left, the noise has a `
        + `standard deviation of ${spread.toFixed(3)}, and the signal-to-noise ratio is `
        + `${t ? (left / (1 - left)).toPrecision(2) : "infinite"}.`;
      return t;
    };
    const step = slider("Timestep", { min: 0, max: T, value: t },
      (value) => { t = value; return draw(); });
    const which = choice("Schedule", names, 0, (value) => { name = names[value]; draw(); });
    box.prepend(canvas, picture, step.line, which, told);
    step.tell();
  };

  /* --- Mixture: density, score and estimate of the clean point, at any timestep ------ */
  figures.mixture = (box, { x, steps, density, score, clean }) => {
    const picture = drawing(380, 396, "Density of xₜ, and the mean of x₀ given xₜ");
    const ends = [x[0], x[x.length - 1]];
    const most = Math.ceil(2 * Math.max(...density.flat())) / 2;
    const whole = (low, high, gap) => {
      const ticks = [];
      for (let value = low; value <= high; value += gap) ticks.push([value, `${value}`]);
      return ticks;
    };
    const far = Math.floor(ends[1]);
    const upper = panel(picture, { left: 38, right: 366, top: 28, bottom: 154, x: ends,
      y: [0, most], xTicks: whole(-far, far, 1), yTicks: whole(0, most, 0.5),
      labels: ["x", "density of xₜ"] });
    const lower = panel(picture, { left: 38, right: 366, top: 224, bottom: 358, x: ends,
      y: ends, xTicks: whole(-far, far, 1), yTicks: whole(-far, far, 1),
      labels: ["x", "mean of x₀, given xₜ = x (dashed: x itself)"] });
    const area = svg("polygon", { class: "area" });
    const outline = svg("polyline", { class: "curve" });
    const same = svg("polyline", { class: "other",
      points: lower.line([[ends[0], ends[0]], [ends[1], ends[1]]]) });
    const estimate = svg("polyline", { class: "curve" });
    const arrow = svg("polyline", { class: "arrow" });
    const dots = [0, 1].map(() => svg("circle", { r: 5, class: "point" }));
    picture.append(area, outline, same, estimate, arrow, ...dots);
    const told = words();
    let i = Math.round(steps.length / 5), j = Math.round(0.52 * x.length);
    const draw = () => {
      const points = x.map((value, k) => [value, density[i][k]]);
      outline.setAttribute("points", upper.line(points));
      area.setAttribute("points", upper.line([[ends[0], 0], ...points, [ends[1], 0]]));
      estimate.setAttribute("points", lower.line(x.map((value, k) => [value, clean[i][k]])));
      const a = upper.px(x[j]), b = upper.py(density[i][j]), slope = score[i][j];
      dots[0].setAttribute("cx", a); dots[0].setAttribute("cy", b);
      dots[1].setAttribute("cx", a); dots[1].setAttribute("cy", lower.py(clean[i][j]));
      /* From 10 to 60 units long: scores differ by orders of magnitude. */
      const sign = Math.sign(slope), flat = Math.abs(slope) < 0.05;
      const tip = a + sign * (10 + 50 * Math.tanh(Math.abs(slope) / 5));
      const head = tip - 6 * sign;
      arrow.setAttribute("points", flat ? ""
        : `${a},${b} ${tip},${b} ${head},${b - 4} ${tip},${b} ${head},${b + 4}`);
      const side = slope > 0 ? "to the right" : "to the left";
      told.textContent = `Timestep ${steps[i]}, x = ${x[j].toFixed(2)}: the score is `
        + `${decimals(slope, 2)}${flat ? "" : ` and points ${side}`}. `
        + `The mean of x₀, given this xₜ, is ${decimals(clean[i][j], 2)}.`;
    };
    const step = slider("Timestep", { min: 0, max: steps.length - 1, value: i },
      (value) => { i = value; draw(); return steps[i]; });
    const at = slider("Point x", { min: 0, max: x.length - 1, value: j },
      (value) => { j = value; draw(); return x[j].toFixed(2); });
    box.prepend(picture, step.line, at.line, told);
    step.tell(); at.tell();
  };

  /* --- Weights: how much each loss counts an error of the noise, at any timestep ----- */
  figures.weights = (box, { steps, curves }) => {
    const names = Object.keys(curves), losses = Object.keys(curves[names[0]]);
    const logs = (name, loss) => curves[name][loss].map(Math.log10);
    const all = names.flatMap((name) => losses.flatMap((loss) => logs(name, loss)));
    const least = 3 * Math.floor(Math.min(...all) / 3);
    const most = 3 * Math.ceil(Math.max(...all) / 3);
    const picture = drawing(380, 340, "Weight of each loss against the timestep");
    const { px, py, line } = panel(picture, { left: 38, right: 366, top: 28, bottom: 266,
      x: [0, Math.log10(steps[steps.length - 1])], y: [least, most],
      xTicks: [[0, "1"], [1, "10"], [2, "100"], [3, "1000"]],
      yTicks: powers(least, most, 3),
      labels: ["timestep t", "weight of the squared error of the noise"] });
    const lines = losses.map((_, k) => svg("polyline", { class: `loss loss-${k}` }));
    const marker = svg("line", { y1: 28, y2: 266, class: "other" });
    const dots = losses.map((_, k) => svg("circle", { r: 4.5, class: `dot dot-${k}` }));
    picture.append(marker, ...lines, ...dots);
    losses.forEach((loss, k) => {
      const left = k % 2 ? 196 : 10, y = k < 2 ? 316 : 334;
      picture.append(
        svg("line", { x1: left, x2: left + 32, y1: y - 4, y2: y - 4, class: `loss loss-${k}` }),
        svg("text", { x: left + 38, y }, loss));
    });
    const told = words();
    let name = names[0], i = Math.round(steps.length / 4);
    const draw = () => {
      const x = Math.log10(steps[i]);
      marker.setAttribute("x1", px(x)); marker.setAttribute("x2", px(x));
      losses.forEach((loss, k) => {
        const values = logs(name, loss);
        lines[k].setAttribute("points", line(values.map((v, n) => [Math.log10(steps[n]), v])));
        dots[k].setAttribute("cx", px(x)); dots[k].setAttribute("cy", py(values[i]));
      });
      const list = losses.map((loss) =>
        `${loss} ${Number(curves[name][loss][i].toPrecision(2))}`).join("; ");
      told.textContent = `Timestep ${steps[i]}, ${name} schedule. Weights: ${list}.`;
    };
    const step = slider("Timestep", { min: 0, max: steps.length - 1, value: i },
      (value) => { i = value; draw(); return steps[i]; });
    const which = choice("Schedule", names, 0, (value) => { name = names[value]; draw(); });
    box.prepend(picture, step.line, which, told);
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
