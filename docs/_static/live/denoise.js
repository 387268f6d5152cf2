/* A recorded network generates an image from noise. It runs in onnxruntime-web, in one thread. */
"use strict";
(() => {
  const { html, fill, parts, sampler, script, imagePicker } = window.dianLive, SIZE = 28 * 28;
  const TEXT = {
    notLoaded: tr("The network could not be loaded ({status})"),
    noisy: tr("Noisy image"),
    clean: tr("Predicted clean image"),
    progress: tr("Completed steps"),
    steps: tr("Steps"),
    eta: tr("η (new noise)"),
    seed: tr("Seed"),
    more: tr("More settings"),
    other: tr("Second seed"),
    mix: tr("Interpolation to the second seed"),
    weight: tr("Guidance weight"),
    twice: tr("With guidance, each step computes the network twice: with the class, and without "
      + "it. Fewer steps take less time."),
    method: tr("Sampler"),
    methods: { ddim: tr("DDIM"), ddpm: tr("DDPM, all timesteps") },
    clip: tr("Clip the predicted image to [−1, 1]"),
    label: tr("Class"),
    none: tr("None"),
    fill: tr("Generate"),
    fills: { none: tr("The whole image"), lower: tr("The lower half"), upper: tr("The upper half") },
    loading: tr("Loading the runtime and the network …"),
    running: tr("Running …"),
    done: tr("Seed {seed}, {steps} steps of {method}: done in {seconds} s."),
    recorded: tr("Recorded Fréchet distance of {steps} such steps: {distance}."),
    expected: tr("about {seconds} s with these settings"),
    replaced: tr("After each step, the known half is replaced by the noised given image. This "
      + "inpainting by replacement only approximates the conditional distribution."),
    cancelled: tr("Cancelled. The memory of the network is released."),
    failed: tr("{what}."),
    start: tr("Denoise"),
    again: tr("Next seed"),
    cancel: tr("Cancel"),
  };

  /** Load a recorded network. predict(x, t, classes) returns a prediction for each class; null
      stands for no class. */
  const open = async ({ facts, root, name, schedule }) => {
    const address = (file) => new URL(`runtime/${file}?v=${facts.runtime}`, root).href;
    await script("runtime/ort.wasm.min.js", facts.runtime);
    const { ort } = window;
    Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: {
      mjs: address("ort-wasm-simd-threaded.mjs"), wasm: address("ort-wasm-simd-threaded.wasm") } });
    const answer = await fetch(new URL(`data/${name}.onnx?v=${facts.data[`${name}.onnx`]}`, root));
    if (!answer.ok) throw new Error(fill(TEXT.notLoaded, answer));
    const session = await ort.InferenceSession.create(await answer.arrayBuffer(),
      { executionProviders: ["wasm"] });
    const predict = async (x, t, classes = [null]) => {
      const n = classes.length, batch = new Float32Array(n * SIZE);
      for (let i = 0; i < n; i++) batch.set(x, i * SIZE);
      const numbers = (values) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [n]);
      const feeds = { x: new ort.Tensor("float32", batch, [n, 1, 28, 28]),
        t: numbers(Array(n).fill(t)) };
      if (schedule.nullClass !== null) feeds.y = numbers(classes.map((c) => c ?? schedule.nullClass));
      const { prediction } = await session.run(feeds);
      const found = Float32Array.from(prediction.data);
      prediction.dispose();
      return Array.from({ length: n }, (_, i) => found.subarray(i * SIZE, (i + 1) * SIZE));
    };
    return { predict, release: () => session.release() };
  };
  window.dianLive.denoise = { open };

  window.dianLive.figures.denoise = ({ box, facts, images, network: first, data, status, root }) => {
    const chosen = { name: Object.keys(facts.networks)[0], method: "ddim", clip: true, half: "none",
      label: "none", known: null };
    // How long the network takes for one image, in seconds; it is known after the first run.
    let cost = null;
    let schedule = first, network = null, cancelled = false, running = false;
    const noisy = parts.picture(TEXT.noisy, 28, 28), clean = parts.picture(TEXT.clean, 28, 28);
    const words = parts.words(), bar = html("progress", { value: 0, "aria-label": TEXT.progress });
    const slider = (label, range) => parts.slider(label, range, () => showExpected());
    const steps = slider(TEXT.steps, { min: 10, max: 100, step: 10, value: 50 });
    const eta = slider(TEXT.eta, { min: 0, max: 1, step: 0.1, value: 0 });
    const seeds = { min: 0, max: 99, value: 3 }, seed = slider(TEXT.seed, seeds);
    const other = slider(TEXT.other, { min: 0, max: 99, value: 4 });
    const mix = slider(TEXT.mix, { min: 0, max: 1, step: 0.05, value: 0 });
    const weight = slider(TEXT.weight, { min: 0, max: 4, step: 0.5, value: 0 });
    const twice = html("p", { className: "live-told", textContent: TEXT.twice });
    const expected = html("span", { className: "live-expected" });
    const method = parts.select(TEXT.method, TEXT.methods, (value) => {
      chosen.method = value;
      for (const { input } of [steps, eta]) input.disabled = value === "ddpm";
      showExpected();
    });
    const clip = parts.check(TEXT.clip, true, (on) => { chosen.clip = on; });
    const label = parts.select(TEXT.label, [["none", TEXT.none], ...images.classes.entries()],
      (value) => { chosen.label = value; showExpected(); });
    const half = parts.select(TEXT.fill, TEXT.fills, (value) => {
      chosen.half = value;
      picker.box.hidden = value === "none";
    });
    const picker = imagePicker(images, ({ pixels }) => { chosen.known = pixels; });

    const draw = (x, x_0) => {
      noisy.paint((i) => parts.gray((x[i] + 1) / 2));
      clean.paint((i) => parts.gray((x_0[i] + 1) / 2));
    };
    const close = async () => {
      const old = network;
      network = null;
      await old?.release();
    };
    const showClasses = () => {
      for (const { line } of [label, weight]) line.hidden = schedule.nullClass === null;
      chosen.label = label.input.value = String(schedule.class ?? "none");
      showExpected();
    };
    const isGuided = () => chosen.label !== "none" && weight.value !== 0;
    /** Say how long a run takes, before it begins, and why guidance takes longer. */
    const showExpected = () => {
      weight.input.disabled = chosen.label === "none";
      twice.hidden = !isGuided();
      const n = chosen.method === "ddpm" ? schedule.T : steps.value;
      const seconds = (cost * n * (isGuided() ? 2 : 1)).toFixed(cost * n < 10 ? 1 : 0);
      expected.textContent = cost === null || running ? "" : fill(TEXT.expected, { seconds });
    };
    /** Read the controls once, since they may be changed during a run. */
    const settings = () => {
      const own = seed.value, start = sampler.normal(own, 0, SIZE);
      const hasClass = chosen.label !== "none";
      const known = chosen.half === "none" ? null : {
        image: Array.from(chosen.known, (v) => 2 * v / 255 - 1), noise: sampler.normal(own, -2, SIZE),
        // The half that is generated is the one that is not known.
        mask: Array.from({ length: SIZE }, (_, i) => (i < SIZE / 2) === (chosen.half === "lower")) };
      return { seed: own, method: chosen.method,
        guidance: hasClass ? { label: Number(chosen.label), weight: weight.value } : null,
        x_T: mix.value ? sampler.between(start, sampler.normal(other.value, 0, SIZE), mix.value) : start,
        options: { steps: steps.value, eta: eta.value, clip: chosen.clip, known,
          noise: (t) => sampler.normal(own, t, SIZE) } };
    };
    const stopIfCancelled = () => { if (cancelled) throw new Error(TEXT.cancelled); };
    /** Generate one image, and show it while it is generated. */
    const generate = async ({ predict }, { method: name, guidance, x_T, options }) => {
      const guided = async (x, t) => {
        if (!guidance) return (await predict(x, t))[0];
        if (guidance.weight === 0) return (await predict(x, t, [guidance.label]))[0];
        const [withClass, without] = await predict(x, t, [guidance.label, null]);
        return sampler.guided(withClass, without, guidance.weight);
      };
      let last = null, seen = performance.now();
      for await (const step of sampler[name](schedule, guided, x_T, options)) {
        last = step;
        if (performance.now() - seen > 30) {
          draw(step.x, step.clean);
          [bar.value, bar.max] = [step.done, step.of];
          // The page draws this step, and hears the button.
          await new Promise((go) => { setTimeout(go); });
          seen = performance.now();
        }
        stopIfCancelled();
      }
      draw(last.x, last.clean);
      [bar.value, bar.max] = [last.of, last.of];
      return last;
    };
    const report = ({ seed: own, method: name, guidance, options }, n, seconds) => {
      const sentences = [fill(TEXT.done, { seed: own, steps: n, method: name.toUpperCase(),
        seconds: seconds.toFixed(1) })];
      const isRecorded = name === "ddim" && options.eta === 0 && options.clip && !options.known;
      const distance = schedule.recorded[`${guidance ? guidance.weight : "none"} ${n}`];
      if (isRecorded && distance) sentences.push(fill(TEXT.recorded, { steps: n, distance }));
      if (options.known) sentences.push(TEXT.replaced);
      return sentences.reduce((first, second) => tr("{first} {second}", { first, second }));
    };
    const run = async () => {
      if (running) return;
      [running, cancelled] = [true, false];
      start.disabled = again.disabled = true;
      cancel.disabled = false;
      bar.removeAttribute("value");
      showExpected();
      words.textContent = network ? TEXT.running : TEXT.loading;
      try {
        network ??= await open({ facts, root, name: chosen.name, schedule });
        stopIfCancelled();
        words.textContent = TEXT.running;
        const used = settings(), begun = performance.now();
        const last = await generate(network, used);
        const seconds = (performance.now() - begun) / 1000;
        cost = seconds / last.of / (used.guidance?.weight ? 2 : 1);
        words.textContent = report(used, last.of, seconds);
        // The tests read these.
        box.dataset.seconds = seconds;
        box.dataset.image = JSON.stringify(Array.from(last.x, (v) => Math.round(1e6 * v) / 1e6));
      } catch (error) {
        words.textContent = cancelled ? TEXT.cancelled : fill(TEXT.failed, { what: error.message });
        bar.value = 0;
        await close();
      }
      running = false;
      start.disabled = again.disabled = false;
      cancel.disabled = true;
      showExpected();
    };

    const start = parts.button(TEXT.start, run);
    // The seed itself is folded away, and the same one gives the same image.
    const again = parts.button(TEXT.again, () => {
      seed.set((seed.value + 1) % (seeds.max + 1));
      return run();
    });
    const cancel = parts.button(TEXT.cancel, () => { cancelled = true; });
    cancel.disabled = true;
    const chooser = parts.networkSelect({ facts, data, status }, (given, name) => {
      cancelled = true;
      [schedule, chosen.name, cost] = [given, name, null];
      showClasses();
      return close();
    });
    chooser.line.hidden = Object.keys(facts.networks).length === 1;
    addEventListener("pagehide", close);
    picker.choose(0);
    picker.box.hidden = true;
    showClasses();
    box.append(chooser.line, label.line, weight.line, twice, steps.line,
      parts.fold(TEXT.more, seed.line, method.line, eta.line, clip.line, other.line, mix.line,
        half.line, picker.box),
      html("div", { className: "live-run" }, start, again, cancel, bar, expected),
      html("div", { className: "live-pictures" }, noisy.box, clean.box), words);
    draw(sampler.normal(3, 0, SIZE), new Float32Array(SIZE).fill(-1));
    run();
  };
})();
