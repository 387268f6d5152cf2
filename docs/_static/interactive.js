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

  const signed = (value) => `${value}`.replace("-", "−");

  /* What the numbers of a page name in English. A name stays the key of its numbers, and
     is translated only where it is shown; here it is marked for the catalogue. */
  const mark = () => {};
  mark("none"); mark("causal"); mark("causal and padding"); mark("blocks of 3");
  mark("padding, 5 of 7"); mark("padding first, and causal");
  mark("linear"); mark("cosine");
  mark("variational bound"); mark("unweighted loss of x₀"); mark("unweighted loss of v");

  /* --- Positions: axes with a title above the upright one --------------------------- */
  const ruled = (picture, { left, right, top, bottom, x, y, across, up, titles }) => {
    const place = {
      x: (value) => left + (right - left) * (value - x[0]) / (x[1] - x[0]),
      y: (value) => bottom - (bottom - top) * (value - y[0]) / (y[1] - y[0]),
    };
    for (const value of up) {
      picture.append(svg("line", { x1: left, x2: right, y1: place.y(value),
        y2: place.y(value), class: "grid" }), svg("text", { x: left - 5,
        y: place.y(value) + 4, "text-anchor": "end" }, signed(value)));
    }
    for (const value of across) {
      picture.append(svg("line", { x1: place.x(value), x2: place.x(value), y1: bottom,
        y2: bottom + 4, class: "grid" }), svg("text", { x: place.x(value),
        y: bottom + 16, "text-anchor": "middle" }, signed(value)));
    }
    picture.append(svg("text", { x: (left + right) / 2, y: bottom + 32,
      "text-anchor": "middle" }, titles[0]), svg("text", { x: 2, y: top - 9 }, titles[1]));
    return place;
  };
  const upTo = (n) => Array.from({ length: n }, (_, i) => i);
  const points = (xs, ys) => xs.map((x, i) => `${x.toFixed(1)},${ys[i].toFixed(1)}`).join(" ");
  const cosines = (omega, offset) => omega.reduce((sum, w) => sum + Math.cos(offset * w), 0);
  const comma = (value) => value.toLocaleString("en-US");

  /* --- Rotary embedding: pairs as hands of a clock, and the score of all of them ----- */
  figures.rotary = (box, { omega }) => {
    const width = 400, r = 36, size = width / omega.length, far = 40;
    const picture = drawing(width, 326, tr("Pairs of features as hands, and their score"));
    picture.append(
      svg("line", { x1: 70, x2: 96, y1: 11, y2: 11, class: "first" }),
      svg("text", { x: 102, y: 15 }, tr("query")),
      svg("line", { x1: 230, x2: 256, y1: 11, y2: 11, class: "second" }),
      svg("text", { x: 262, y: 15 }, tr("key")));
    const hands = omega.map((w, i) => {
      const x = size * (i + 0.5), y = 66;
      const hand = (name) => svg("line", { x1: x, y1: y, class: name });
      const query = hand("first"), key = hand("second");
      picture.append(svg("circle", { cx: x, cy: y, r, class: "frame" }), query, key,
        svg("text", { x, y: 120, "text-anchor": "middle" }, tr("pair {i}", { i })));
      return { x, y, w, key, query };
    });
    const n = omega.length, offsets = upTo(2 * far + 1).map((i) => i - far);
    const at = ruled(picture, { left: 30, right: width - 10, top: 166, bottom: 286,
      x: [-far, far], y: [-n, n], across: [-40, -20, 0, 20, 40], up: [-n, 0, n],
      titles: [tr("relative position m − n"), tr("score")] });
    const here = svg("circle", { r: 5, class: "here" });
    picture.append(svg("polyline", { class: "curve", points: points(offsets.map(at.x),
      offsets.map((offset) => at.y(cosines(omega, offset)))) }), here);
    const told = words(), place = { query: 7, key: 4 };
    const draw = () => {
      for (const { x, y, w, ...hand } of hands) {
        for (const name of ["query", "key"]) {
          hand[name].setAttribute("x2", x + r * Math.cos(place[name] * w));
          hand[name].setAttribute("y2", y - r * Math.sin(place[name] * w));
        }
      }
      const offset = place.query - place.key, score = cosines(omega, offset);
      here.setAttribute("cx", at.x(offset));
      here.setAttribute("cy", at.y(score));
      told.textContent = tr("Query at position {m}, key at position {n}: relative "
        + "position {offset}, score {score} of at most {most}.", { m: place.query,
        n: place.key, offset: signed(offset), score: signed(score.toFixed(3)), most: n });
    };
    const of = (name) => slider(name === "query" ? tr("Position of the query") : tr("Position of the key"),
      { min: 0, max: far, value: place[name] },
      (value) => { place[name] = value; draw(); return value; });
    const both = [of("query"), of("key")];
    const move = (label, step) => {
      const button = html("button", { type: "button", textContent: label });
      button.addEventListener("click", () => {
        const moved = both.map(({ input }) => Number(input.value) + step);
        if (moved.some((value) => value < 0 || value > far)) return;
        both.forEach(({ input, tell }, i) => { input.value = moved[i]; tell(); });
      });
      return button;
    };
    const buttons = html("div", { className: "interactive-control" },
      move(tr("Move both forward"), 1), move(tr("Move both back"), -1));
    box.prepend(picture, ...both.map(({ line }) => line), buttons, told);
    both.forEach(({ tell }) => tell());
  };

  /* --- Sinusoidal encoding: the matrix, and the product with one of its rows --------- */
  figures.sinusoidal = (box, { d, n, bases }) => {
    const width = 400, cell = 6, top = 46, left = 36, right = left + d * cell;
    const bottom = top + n * cell, edge = right + 24;
    const picture = drawing(width, bottom + 40,
      tr("Sinusoidal encoding of each position, and its product with one position"));
    picture.append(
      ...[["0", "−1", "below"], ["92", "+1", "cell"]].flatMap(([x, name, kind]) => [
        svg("rect", { x: left + Number(x), y: 4, width: 12, height: 12, class: kind }),
        svg("text", { x: left + Number(x) + 18, y: 14 }, tr("value {value}", { value: name }))]));
    const cells = upTo(n).map((p) => upTo(d).map((f) => {
      const one = svg("rect", { x: left + f * cell, y: top + p * cell,
        width: cell, height: cell });
      picture.append(one);
      return one;
    }));
    const rows = upTo(n).filter((p) => p % 8 === 0);
    for (const p of rows) {
      picture.append(svg("text", { x: left - 5, y: top + (p + 0.5) * cell + 4,
        "text-anchor": "end" }, `${p}`));
    }
    for (const f of upTo(d).filter((f) => f % 8 === 0)) {
      picture.append(svg("text", { x: left + (f + 0.5) * cell, y: bottom + 16,
        "text-anchor": "middle" }, `${f}`));
    }
    picture.append(
      svg("text", { x: 2, y: top - 9 }, tr("position")),
      svg("text", { x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle" },
        tr("feature")),
      svg("text", { x: (edge + width - 8) / 2, y: bottom + 32, "text-anchor": "middle" },
        tr("product")));
    const least = -d / 4, x = (product) =>
      edge + (width - 8 - edge) * (product - least) / (d / 2 - least);
    for (const value of [0, d / 4, d / 2]) {
      picture.append(svg("line", { x1: x(value), x2: x(value), y1: top, y2: bottom,
        class: "grid" }), svg("text", { x: x(value), y: bottom + 16,
        "text-anchor": "middle" }, `${value}`));
    }
    const curve = svg("polyline", { class: "curve" });
    const marker = svg("rect", { x: left, width: right - left, height: cell,
      class: "marker" }), here = svg("circle", { r: 5, class: "here" });
    picture.append(curve, marker, here);
    const middle = (p) => top + (p + 0.5) * cell;
    const told = words();
    let p = Math.floor(n / 4), base = bases[0];
    const draw = () => {
      const omega = upTo(d / 2).map((i) => base ** (-2 * i / d));
      const products = upTo(n).map((q) => cosines(omega, p - q));
      curve.setAttribute("points", points(products.map(x), upTo(n).map(middle)));
      marker.setAttribute("y", top + p * cell);
      here.setAttribute("cx", x(products[p]));
      here.setAttribute("cy", middle(p));
      const next = p + 1 < n ? p + 1 : p - 1, away = p + 12 < n ? p + 12 : p - 12;
      const longest = Math.round(2 * Math.PI / omega[d / 2 - 1]);
      told.textContent = tr("Position {p}, base {base}: wavelengths from 6 to {longest} "
        + "positions; product {own} with itself, {near} with position {next}, {far} with "
        + "position {away}.", { p, base: comma(base), longest: comma(longest), next, away,
        own: products[p].toFixed(1), near: products[next].toFixed(1),
        far: products[away].toFixed(1) });
      return omega;
    };
    const paint = () => {
      const omega = draw();
      cells.forEach((row, q) => row.forEach((one, f) => {
        const angle = q * omega[f >> 1], value = f % 2 ? Math.cos(angle) : Math.sin(angle);
        one.setAttribute("class", value < 0 ? "below" : "cell");
        one.setAttribute("fill-opacity", Math.abs(value).toFixed(2));
      }));
    };
    const position = slider(tr("Position"), { min: 0, max: n - 1, value: p },
      (value) => { p = value; draw(); return value; });
    const frequency = slider(tr("Base θ of the frequencies"),
      { min: 0, max: bases.length - 1, value: bases.indexOf(10000) },
      (value) => { base = bases[value]; paint(); return comma(base); });
    box.prepend(picture, position.line, frequency.line, told);
    frequency.tell(); position.tell();
  };

  /* --- RoPE scaling: the factor of each frequency, by three methods ------------------ */
  figures.scaling = (box, { factors, lengths, betas, ntk, yarn }) => {
    const width = 400, pairs = ntk[0].length;
    const picture = drawing(width, 276, tr("Factor of each frequency, by three methods"));
    const at = ruled(picture, { left: 36, right: width - 10, top: 56, bottom: 236,
      x: [-0.3, pairs - 0.7], y: [0, 1], across: upTo(pairs), up: [0, 0.25, 0.5, 0.75, 1],
      titles: [tr("pair i (0 is the fastest)"), tr("scaled / original frequency")] });
    const shapes = [
      (x, y) => `M${x - 5},${y} a5,5 0 1,0 10,0 a5,5 0 1,0 -10,0`,
      (x, y) => `M${x - 5},${y - 5} h10 v10 h-10 z`,
      (x, y) => `M${x},${y - 6} l6,11 h-12 z`];
    const lines = [tr("interpolation"), tr("NTK-aware"), tr("YaRN")].map((name, k) => {
      const kind = ["first", "second", "third"][k], x = 4 + 142 * k;
      const line = svg("polyline", { class: kind }), marks = svg("path", { class: `${kind} full` });
      picture.append(svg("line", { x1: x, x2: x + 30, y1: 14, y2: 14, class: kind }),
        svg("path", { d: shapes[k](x + 15, 14), class: `${kind} full` }),
        svg("text", { x: x + 36, y: 18 }, name), line, marks);
      return { line, marks, shape: shapes[k] };
    });
    const told = words(), chosen = { s: Math.max(0, factors.indexOf(4)), L: 0, b: 0 };
    const draw = () => {
      const s = factors[chosen.s], L = lengths[chosen.L], beta = betas[chosen.b];
      const of = [upTo(pairs).map(() => 1 / s), ntk[chosen.s], yarn[chosen.s][chosen.L][chosen.b]];
      lines.forEach(({ line, marks, shape }, k) => {
        const xs = upTo(pairs).map(at.x), ys = of[k].map(at.y);
        line.setAttribute("points", points(xs, ys));
        marks.setAttribute("d", xs.map((x, i) => shape(x, ys[i])).join(" "));
      });
      const kept = of[2].filter((ratio) => ratio > 0.9999).length;
      const slowed = of[2].filter((ratio) => ratio < 1.0001 / s).length;
      told.textContent = tr("Training length {L}, factor {s}, β = {beta}: YaRN keeps {kept} "
        + "of the {pairs} frequencies, and divides {slowed} of them by {s}.",
      { L: comma(L), s, beta, kept, pairs, slowed });
    };
    const of = (label, name, values) => slider(label,
      { min: 0, max: values.length - 1, value: chosen[name] },
      (value) => { chosen[name] = value; draw(); return comma(values[value]); });
    const controls = [of(tr("Factor s of the length"), "s", factors),
      of(tr("Training length L"), "L", lengths), of(tr("Threshold β of YaRN"), "b", betas)];
    box.prepend(picture, ...controls.map(({ line }) => line), told);
    controls.forEach(({ tell }) => tell());
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
    picture.append(upright(n * height / 2, tr("query")), upright(foot + tall / 2, tr("weight")),
      top, say(left - 5, foot + tall, "0", "end"),
      say(left + width / 2, foot + tall + 33, tr("key")));
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
    return tr("its largest weight is {most}, on key {key}, and the row sums to {sum}.",
      { most: most.toFixed(3), key: line.indexOf(most),
        sum: line.reduce((a, b) => a + b, 0).toFixed(2) });
  };
  figures.attention = (box, { weights }) => {
    const n = weights[0].length;
    const map = weightMap(n, weights[0][0].length, tr("Attention weights of one head"));
    const told = words();
    let head = 0, row = 0;
    const show = () => {
      map.draw(weights[head], row, Math.max(...weights[head].flat()));
      told.textContent = tr("Head {head}, query {row}: {top}",
        { head: head + 1, row, top: topOf(weights[head][row]) });
    };
    const heads = slider(tr("Head"), { min: 1, max: weights.length, value: 1 },
      (value) => { head = value - 1; show(); return value; });
    const rows = slider(tr("Query"), { min: 0, max: n - 1, value: 0 },
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
    const map = weightMap(n, scores[0].length, tr("Attention weights under a mask"));
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
      const list = { name: tr(name), row, keys: keys.join(tr(", ")),
        top: topOf(weights[row]) };
      told.textContent = keys.length > 1
        ? tr("Mask: {name}. Query {row} may attend to keys {keys}: {top}", list)
        : keys.length
          ? tr("Mask: {name}. Query {row} may attend to key {keys}: {top}", list)
          : tr("Mask: {name}. Query {row} may attend to no key: its weights and its "
            + "output are zero.", list);
    };
    const kinds = choice(tr("Mask"), names.map((one) => tr(one)), 0,
      (value) => { name = names[value]; show(); });
    const rows = slider(tr("Query"), { min: 0, max: n - 1, value: row },
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
    const weights = axes(tr("Weights of the keys"), tr("key, by decreasing score"), tr("weight"));
    for (let j = 0; j < n; j += 5) {
      weights.append(svg("text", { x: left + (j + 0.5) * cell, y: height - 21,
        "text-anchor": "middle" }, `${j}`));
    }
    const bars = svg("g");
    weights.append(bars);

    const ends = [-5, 5]; // powers of two
    const x = (spread) => left + (width - left - 6)
      * (Math.log2(spread) - ends[0]) / (ends[1] - ends[0]);
    const curves = axes(tr("Entropy, and trace of the Jacobian"),
      tr("standard deviation s of the scores"), tr("entropy, trace"));
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
    [["first", tr("entropy / ln {n}", { n })], ["second", tr("trace of Jacobian")]].forEach(([name, text], i) => {
      const at = y(0.28 - 0.14 * i);
      curves.append(svg("line", { x1: left + 8, x2: left + 34, y1: at, y2: at, class: name }),
        svg("text", { x: left + 40, y: at + 4 }, text));
    });

    curves.append(...points);

    const told = words();
    const divisors = [[tr("1 (no division)"), () => 1, tr("not divided")],
      ["√dₖ", Math.sqrt, tr("divided by √dₖ")], ["dₖ", (d) => d, tr("divided by dₖ")]];
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
      told.textContent = tr("Dimension {size}, {said}: the scores have the standard "
        + "deviation s = {spread}. The largest weight is {most}, the entropy is {entropy} "
        + "of at most {limit} nats, and the trace of the Jacobian is {trace}.",
      { size, said, spread: Number(spread.toFixed(3)),
        most: Math.max(...found.p).toFixed(2), entropy: found.entropy.toFixed(2),
        limit: Math.log(n).toFixed(2), trace: found.trace.toFixed(2) });
    };
    const size = slider(tr("Dimension dₖ of a key"), { min: 0, max: dimensions.length - 1,
      value: d }, (value) => { d = value; draw(); return dimensions[d]; });
    const kinds = choice(tr("Scores are divided by"), divisors.map(([text]) => text), way,
      (value) => { way = value; draw(); });
    box.prepend(html("div", { className: "interactive-pair" }, weights, curves),
      size.line, kinds, told);
    size.tell();
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
    canvas.setAttribute("aria-label", tr("Images with the noise of one timestep"));
    const context = canvas.getContext("2d"), told = words();

    const names = Object.keys(alphaBar), T = alphaBar[names[0]].length - 1;
    const power = (name, t) => Math.log10(alphaBar[name][t] / (1 - alphaBar[name][t]));
    const ends = names.flatMap((name) => [power(name, 1), power(name, T)]);
    const least = 3 * Math.floor(Math.min(...ends) / 3);
    const most = 3 * Math.ceil(Math.max(...ends) / 3);
    const picture = drawing(380, 214, tr("Signal-to-noise ratio against the timestep"));
    const ticks = [0, 1, 2, 3, 4].map((k) => Math.round(k * T / 4));
    const { px, py, line } = panel(picture, { left: 38, right: 366, top: 28, bottom: 176,
      x: [0, T], y: [least, most], xTicks: ticks.map((t) => [t, `${t}`]),
      yTicks: powers(least, most, 3), labels: [tr("timestep t"), tr("signal-to-noise ratio")] });
    const curves = names.map((name) => {
      const points = alphaBar[name].map((_, t) => [t, power(name, t)]).slice(1);
      const curve = svg("polyline", { points: line(points) });
      picture.append(curve);
      return curve;
    });
    names.forEach((name, k) => {
      const t = Math.round(0.6 * T);
      picture.append(svg("text", { x: px(t), y: py(power(name, t)) + (k ? -8 : 16),
        "text-anchor": k ? "start" : "end" }, tr(name)));
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
      const ratio = t ? (left / (1 - left)).toPrecision(2) : tr("infinite");
      told.textContent = tr("Timestep {t}, {name} schedule: {percent} % of the amplitude is "
        + "left, the noise has a standard deviation of {spread}, and the signal-to-noise "
        + "ratio is {ratio}.", { t, name: tr(name), percent: (100 * signal).toFixed(1),
        spread: spread.toFixed(3), ratio });
      return t;
    };
    const step = slider(tr("Timestep"), { min: 0, max: T, value: t },
      (value) => { t = value; return draw(); });
    const which = choice(tr("Schedule"), names.map((one) => tr(one)), 0,
      (value) => { name = names[value]; draw(); });
    box.prepend(canvas, picture, step.line, which, told);
    step.tell();
  };

  /* --- Mixture: density, score and estimate of the clean point, at any timestep ------ */
  figures.mixture = (box, { x, steps, density, score, clean }) => {
    const picture = drawing(380, 396, tr("Density of xₜ, and the mean of x₀ given xₜ"));
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
      labels: ["x", tr("density of xₜ")] });
    const lower = panel(picture, { left: 38, right: 366, top: 224, bottom: 358, x: ends,
      y: ends, xTicks: whole(-far, far, 1), yTicks: whole(-far, far, 1),
      labels: ["x", tr("mean of x₀, given xₜ = x (dashed: x itself)")] });
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
      const side = slope > 0 ? tr("to the right") : tr("to the left");
      const values = { t: steps[i], x: x[j].toFixed(2), score: decimals(slope, 2), side,
        mean: decimals(clean[i][j], 2) };
      told.textContent = flat
        ? tr("Timestep {t}, x = {x}: the score is {score}. The mean of x₀, given this xₜ, "
          + "is {mean}.", values)
        : tr("Timestep {t}, x = {x}: the score is {score} and points {side}. The mean of "
          + "x₀, given this xₜ, is {mean}.", values);
    };
    const step = slider(tr("Timestep"), { min: 0, max: steps.length - 1, value: i },
      (value) => { i = value; draw(); return steps[i]; });
    const at = slider(tr("Point x"), { min: 0, max: x.length - 1, value: j },
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
    const picture = drawing(380, 340, tr("Weight of each loss against the timestep"));
    const { px, py, line } = panel(picture, { left: 38, right: 366, top: 28, bottom: 266,
      x: [0, Math.log10(steps[steps.length - 1])], y: [least, most],
      xTicks: [[0, "1"], [1, "10"], [2, "100"], [3, "1000"]],
      yTicks: powers(least, most, 3),
      labels: [tr("timestep t"), tr("weight of the squared error of the noise")] });
    // Written out: a rule for a class that no source names is left out of the style sheet.
    const kinds = ["loss loss-0", "loss loss-1", "loss loss-2", "loss loss-3"];
    const lines = losses.map((_, k) => svg("polyline", { class: kinds[k] }));
    const marker = svg("line", { y1: 28, y2: 266, class: "other" });
    const dots = losses.map((_, k) => svg("circle", { r: 4.5, class: `dot dot-${k}` }));
    picture.append(marker, ...lines, ...dots);
    losses.forEach((loss, k) => {
      const left = k % 2 ? 196 : 10, y = k < 2 ? 316 : 334;
      picture.append(
        svg("line", { x1: left, x2: left + 32, y1: y - 4, y2: y - 4, class: kinds[k] }),
        svg("text", { x: left + 38, y }, tr(loss)));
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
        `${tr(loss)} ${Number(curves[name][loss][i].toPrecision(2))}`).join(tr("; "));
      told.textContent = tr("Timestep {t}, {name} schedule. Weights: {list}.",
        { t: steps[i], name: tr(name), list });
    };
    const step = slider(tr("Timestep"), { min: 0, max: steps.length - 1, value: i },
      (value) => { i = value; draw(); return steps[i]; });
    const which = choice(tr("Schedule"), names.map((one) => tr(one)), 0,
      (value) => { name = names[value]; draw(); });
    box.prepend(picture, step.line, which, told);
    step.tell();
  };

  /* --- Axes: grid lines with numbers at the left, numbers and a name below ----------- */
  const axes = (picture, { left, right, top, bottom, x, y, rows, columns, names }) => {
    for (const [value, shown] of rows) {
      picture.append(svg("line", { x1: left, x2: right, y1: y(value), y2: y(value),
        class: "grid" }), svg("text", { x: left - 6, y: y(value) + 4,
        "text-anchor": "end" }, shown));
    }
    for (const value of columns) {
      picture.append(svg("text", { x: x(value), y: bottom + 15,
        "text-anchor": "middle" }, `${value}`));
    }
    const middle = (top + bottom) / 2;
    picture.append(
      svg("text", { x: (left + right) / 2, y: bottom + 31, "text-anchor": "middle" },
        names[0]),
      svg("text", { x: 13, y: middle, "text-anchor": "middle",
        transform: `rotate(-90 13 ${middle})` }, names[1]));
  };
  const power = (exponent) => (exponent ? `1e${exponent}` : "1");
  const along = (points) => points.map((point) => point.join(",")).join(" ");

  /* --- Gradient against lag, for each gain and each scale of the input --------------- */
  figures.gradient = (box, { gains, spreads, curves }) => {
    const width = 480, height = 290, left = 74, right = width - 14, top = 8, gap = 4;
    const bottom = height - 38, powers = curves.flat(2);
    const least = gap * Math.floor(Math.min(...powers) / gap);
    const most = gap * Math.ceil(Math.max(...powers) / gap);
    const picture = drawing(width, height, tr("Norm of the gradient against the lag"));
    const lags = curves[0][0].length - 1;
    const x = (k) => left + (right - left) * k / lags;
    const y = (exponent) => top + (bottom - top) * (most - exponent) / (most - least);
    const rows = [], columns = [];
    for (let k = least; k <= most; k += gap) rows.push([k, power(k)]);
    for (let k = 0; k <= lags; k += 10) columns.push(k);
    axes(picture, { left, right, top, bottom, x, y, rows, columns,
      names: [tr("lag (steps)"), tr("norm of the gradient / at lag 0")] });
    const line = svg("polyline", { class: "curve" });
    picture.append(line);
    const told = words();
    let i = Math.max(0, gains.indexOf(1)), j = Math.max(0, spreads.indexOf(1));
    const draw = () => {
      const curve = curves[i][j];
      line.setAttribute("points", along(curve.map((value, k) => [x(k), y(value)])));
      const end = curve[lags];
      told.textContent = tr("Gain {gain}, input of s.d. {spread}: after {lags} steps the norm "
        + "is {factor} times that at lag 0.", { gain: gains[i], spread: spreads[j], lags,
        factor: (10 ** end).toExponential(1) });
    };
    const gain = slider(tr("Gain of the recurrent matrix"),
      { min: 0, max: gains.length - 1, value: i },
      (value) => { i = value; draw(); return gains[i]; });
    const spread = slider(tr("Standard deviation of the input"),
      { min: 0, max: spreads.length - 1, value: j },
      (value) => { j = value; draw(); return spreads[j]; });
    box.prepend(picture, gain.line, spread.line, told);
    gain.tell(); spread.tell();
  };

  /* --- One unit: its state forward, and the derivative of its last state backward ---- */
  figures.unit = (box, { weights, impulses, steps }) => {
    const width = 480, left = 74, right = width - 14;
    const picture = drawing(width, 400, tr("One unit: its states, and the derivative of the "
      + "last state with respect to each"));
    const x = (t) => left + (right - left) * (t - 0.5) / steps;
    const columns = [1];
    for (let t = 5; t <= steps; t += 5) columns.push(t);
    const panel = (top, bottom, [low, high], rows, names) => {
      const y = (value) => top + (bottom - top) * (high - value) / (high - low);
      axes(picture, { left, right, top, bottom, x, y, rows, columns, names });
      const line = svg("polyline", { class: "curve" }), dots = svg("g");
      picture.append(line, dots);
      return (values) => {
        const points = values.map((value, i) => [x(i + 1), y(value)]);
        line.setAttribute("points", along(points));
        dots.replaceChildren(...points.map(([cx, cy]) =>
          svg("circle", { cx, cy, r: 3, class: "bar" })));
      };
    };
    const forward = panel(8, 148, [-1, 1], [-1, -0.5, 0, 0.5, 1].map((v) => [v, `${v}`]),
      [tr("step t"), tr("state of the unit")]);
    const backward = panel(210, 362, [-12, 4], [-12, -8, -4, 0, 4].map((v) => [v, power(v)]),
      [tr("step t"), tr("|derivative|")]);
    const told = words();
    let i = Math.max(0, weights.indexOf(0.8)), j = Math.max(0, impulses.indexOf(1));
    const draw = () => {
      const w = weights[i], states = [];
      for (let t = 0, h = 0; t < steps; t++) {
        h = Math.tanh(w * h + (t ? 0 : impulses[j]));
        states.push(h);
      }
      // d h_T / d h_t: one factor w (1 - h_s^2) for each step s after t
      const derivatives = Array(steps).fill(1);
      for (let t = steps - 1; t; t--) {
        derivatives[t - 1] = derivatives[t] * w * (1 - states[t] ** 2);
      }
      forward(states);
      backward(derivatives.map((value) => Math.log10(Math.abs(value))));
      told.textContent = tr("Recurrent weight {w}, impulse {impulse}: the last state is "
        + "{last}, and its derivative with respect to the first is {derivative}.",
      { w, impulse: impulses[j], last: Number(states[steps - 1].toPrecision(2)),
        derivative: Number(derivatives[0].toPrecision(2)) });
    };
    const weight = slider(tr("Recurrent weight"),
      { min: 0, max: weights.length - 1, value: i },
      (value) => { i = value; draw(); return weights[i]; });
    const impulse = slider(tr("Impulse at step 1"),
      { min: 0, max: impulses.length - 1, value: j },
      (value) => { j = value; draw(); return impulses[j]; });
    box.prepend(picture, weight.line, impulse.line, told);
    weight.tell(); impulse.tell();
  };

  /* --- A forget gate: the gradient that remains, and its time scale ------------------ */
  figures.forget = (box, { biases, lags, lag }) => {
    const width = 480, height = 290, left = 74, right = width - 14, top = 8;
    const bottom = height - 38;
    const picture = drawing(width, height, tr("Fraction of the gradient against the lag"));
    const x = (k) => left + (right - left) * k / lags;
    const y = (fraction) => top + (bottom - top) * (1 - fraction);
    const columns = [];
    for (let k = 0; k <= lags; k += 20) columns.push(k);
    axes(picture, { left, right, top, bottom, x, y, columns,
      rows: [0, 0.25, 0.5, 0.75, 1].map((v) => [v, `${v}`]),
      names: [tr("lag (steps)"), tr("fraction of the gradient")] });
    const line = svg("polyline", { class: "curve" });
    const mark = svg("line", { y1: y(0), y2: y(Math.exp(-1)), class: "second" });
    const name = svg("text", { y: y(0) - 8 }, tr("time scale"));
    picture.append(mark, line, name);
    const told = words();
    const bias = slider(tr("Bias of the forget gate"),
      { min: 0, max: biases.length - 1, value: Math.max(0, biases.indexOf(3)) },
      (value) => {
        const b = biases[value], gate = 1 / (1 + Math.exp(-b)), tau = -1 / Math.log(gate);
        const points = Array.from({ length: lags + 1 }, (_, k) => [x(k), y(gate ** k)]);
        line.setAttribute("points", along(points));
        mark.setAttribute("x1", x(tau));
        mark.setAttribute("x2", x(tau));
        name.setAttribute("x", x(tau) + (tau < 0.75 * lags ? 6 : -6));
        name.setAttribute("text-anchor", tau < 0.75 * lags ? "start" : "end");
        for (const part of [mark, name]) part.style.display = tau > lags ? "none" : "";
        told.textContent = tr("Bias {b}: the gate is {gate}, and its time scale is {tau} "
          + "steps. After {lag} steps a fraction of {rest} of the gradient remains.",
        { b, gate: gate.toFixed(3), tau: tau.toFixed(1), lag,
          rest: Number((gate ** lag).toPrecision(2)) });
        return b;
      });
    box.prepend(picture, bias.line, told);
    bias.tell();
  };

  document.querySelectorAll("figure.interactive").forEach((box) => {
    const data = JSON.parse(box.querySelector("script").textContent);
    figures[box.dataset.figure](box, data);
    box.hidden = false;
  });
})();
