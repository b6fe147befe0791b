// What is shown can be read as numbers: see the window's `look` at the end.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("data").textContent);
  const $ = id => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const IGNORED = 255, STRIPES = ["#787878", "#e6e6e6"];

  const state = {
    sample: 0,
    view: page.views.length - 1,
    stop: 0,
    shows: "mask",
    points: page.samples.map(() => null),  // chosen pixel [x, y] of each image; null: the roughest position
  };
  let arrays = null;  // of the sample that is shown
  let wanted = 0;

  // --- data

  const inflate = async (text, Kind = Uint8Array) => {
    const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Kind(await new Response(stream).arrayBuffer());
  };

  const inflateSample = async sample => {
    const masks = await Promise.all(sample.masks.map(text => inflate(text)));
    masks.slice(1).forEach((mask, before) => mask.forEach((_, pixel) => { mask[pixel] ^= masks[before][pixel]; }));
    const kinds = {roughness: Float32Array, trained_gate: Float32Array, plain_max: Float32Array, mean_max: Float32Array};
    const views = await Promise.all(sample.views.map(async view => {
      const names = Object.keys(view).filter(name => name !== "start");
      const found = await Promise.all(names.map(name => inflate(view[name], kinds[name])));
      return Object.fromEntries(names.map((name, place) => [name, found[place]]));
    }));
    return {masks, views, truth: await inflate(sample.truth)};
  };

  const sampleNow = () => page.samples[state.sample];
  const viewNow = () => page.views[state.view];
  const stopNow = () => page.stops[state.stop];
  const maskOf = stop => arrays.masks[sampleNow().mask_of_stop[stop]];

  // --- position and image: as Look.position_at and Look.box_of

  const pointNow = () => state.points[state.sample] ?? sampleNow().views[state.view].start;

  const cellAt = (x, y) => {
    const {width, height} = sampleNow(), [rows, columns] = viewNow().grid;
    const along = (share, cells) =>
      Math.min(Math.floor(Math.max(share, 0) * page.covered * cells), Math.ceil(page.covered * cells - 1e-9) - 1);
    return [along(y / height, rows), along(x / width, columns)];
  };
  const nearest = (kept, at) => kept.reduce((best, each, place) =>
    Math.abs(each - at) < Math.abs(kept[best] - at) ? place : best, 0);
  // places among the kept rows and columns
  const placeNow = () => {
    const [row, column] = cellAt(...pointNow());
    return [nearest(viewNow().rows, row), nearest(viewNow().columns, column)];
  };
  const cellNow = () => {
    const [row, column] = placeNow();
    return [viewNow().rows[row], viewNow().columns[column]];
  };
  const boxOf = (row, column) => {
    const {width, height} = sampleNow(), [rows, columns] = viewNow().grid;
    const wide = width / page.covered / columns, high = height / page.covered / rows;
    return [column * wide, row * high, Math.min((column + 1) * wide, width), Math.min((row + 1) * high, height)];
  };

  // --- rows of attention, gate

  const rowOf = name => {
    const {rows, columns, keys} = viewNow(), view = arrays.views[state.view], [row, column] = placeNow();
    const count = keys[0] * keys[1], place = row * columns.length + column, largest = view[`${name}_max`][place];
    return Array.from(view[name].subarray(place * count, (place + 1) * count), code => (code / 255) ** 2 * largest);
  };
  const gateNow = () => {
    const {grid} = viewNow(), view = arrays.views[state.view], size = grid[0] * grid[1];
    return state.stop === 0 ? view.trained_gate : view.gates.subarray((state.stop - 1) * size, state.stop * size);
  };
  const rowsNow = () => {
    const [row, column] = cellNow(), place = row * viewNow().grid[1] + column;
    const gate = gateNow()[place], plain = rowOf("plain"), mean = rowOf("mean");
    return {
      gate, plain,
      used: plain.map((value, key) => value * (1 - gate) + mean[key] * gate),
      limit: Math.max(...plain, ...mean),  // of the colours; it does not depend on the rule
      roughness: arrays.views[state.view].roughness[place],
    };
  };

  // --- words

  const superscript = number => [...String(number)].map(sign => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
  const digits = (value, count = 2) => {
    if (value === 0 || Math.abs(value) >= 0.001) return String(Number(value.toPrecision(count)));
    const [mantissa, exponent] = value.toExponential(count - 1).split("e");
    return `${mantissa}\u00a0×\u00a010${superscript(Number(exponent))}`;
  };
  const percent = share => `${Number((100 * share).toPrecision(2))}\u00a0%`;
  const grouped = value => value.toLocaleString("en");
  const range = values => `${digits(values.reduce((a, b) => Math.min(a, b)))} to ${digits(values.reduce((a, b) => Math.max(a, b)))}`;
  const total = values => values.reduce((sum, value) => sum + value, 0);
  const recomputed = "recomputed with the same weights, not retrained";
  const ruleNow = () => (stopNow().is_trained ? `as trained: ${stopNow().rule}` : stopNow().rule);
  const say = (id, ...parts) => {  // text, never markup; a part in a list is one that warns
    $(id).replaceChildren(...parts.filter(Boolean).map(part => {
      if (!Array.isArray(part)) return part;
      const span = document.createElement("span");
      span.className = "recomputed";
      span.textContent = part[0];
      return span;
    }));
  };
  const warning = () => (stopNow().is_trained ? "" : [` ${recomputed[0].toUpperCase()}${recomputed.slice(1)}.`]);

  // --- pictures

  // colours as the canvas holds them, little end first; 0 is transparent
  const opaque = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const rgb = colour => opaque(...[1, 3, 5].map(start => parseInt(colour.slice(start, start + 2), 16)));
  const tables = Object.fromEntries(Object.entries(page.tables).map(([name, text]) => {
    const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
    return [name, Array.from({length: 256}, (_, place) => opaque(...bytes.subarray(3 * place, 3 * place + 3)))];
  }));
  const colourOf = (table, share) => tables[table][Math.round(255 * Math.min(Math.max(share, 0), 1) ** page.power)];
  const grey = share => opaque(...Array(3).fill(Math.round(255 * share)));

  const paint = (canvas, width, height, colour) => {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
    const colours = new Uint32Array(picture.data.buffer);
    for (let pixel = 0; pixel < colours.length; pixel++) colours[pixel] = colour(pixel);
    context.putImageData(picture, 0, 0);
  };

  // a map of the grid, or of blocks of its cells; what lies beyond the image is cut off by the frame
  const paintMap = (name, values, shape, cellsPerValue, colour) => {
    const canvas = document.querySelector(`.stage[data-map=${name}] canvas`), {grid} = viewNow();
    paint(canvas, shape[1], shape[0], pixel => colour(values[pixel]));
    canvas.style.width = `${100 * shape[1] * cellsPerValue / grid[1] / page.covered}%`;
    canvas.style.height = `${100 * shape[0] * cellsPerValue / grid[0] / page.covered}%`;
  };

  // labels that are drawn, the colour of each, and what the colours mean
  const layerNow = () => {
    const mask = maskOf(state.stop), {truth} = arrays, ignored = pixel => truth[pixel] === IGNORED;
    const binary = page.classes === null;
    const names = binary ? [[1, page.colours[1], "foreground"]] : page.classes.map((name, label) => [label, page.colours[label], name]);
    if (state.shows === "image") return {labels: new Uint8Array(mask.length), key: [], ignored: () => false};
    if (state.shows === "mask") return {labels: mask, key: names, ignored: () => false};
    if (state.shows === "truth") return {labels: truth, key: names, ignored};
    const {found, alarm, missed} = page.errors;
    const verdicts = [[3, found, "found"], [2, alarm, "false alarm"], [1, missed, "missed"]];
    const judge = binary
      ? pixel => (ignored(pixel) ? 0 : Number(truth[pixel] === 1) + 2 * mask[pixel])
      : pixel => (ignored(pixel) || mask[pixel] === truth[pixel] ? IGNORED : mask[pixel]);
    return {labels: mask.map((_, pixel) => judge(pixel)), key: binary ? verdicts : names, ignored};
  };

  let drawn = "";  // what the mask's canvas holds
  const drawMask = () => {
    const now = [state.sample, state.shows, sampleNow().mask_of_stop[state.stop]].join();
    if (now === drawn) return;
    drawn = now;
    const {labels, key, ignored} = layerNow(), [width, height] = sampleNow().picture;
    const colours = new Map(key.map(([label, colour]) => [label, rgb(colour)])), stripes = STRIPES.map(rgb);
    const period = Math.max(4, Math.floor(Math.min(width, height) / 32));
    const at = (x, y) => labels[Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1)];
    const isEdge = pixel => {
      const x = pixel % width, y = (pixel - x) / width, label = labels[pixel];
      for (let down = -1; down <= 1; down++) {
        for (let right = -1; right <= 1; right++) if (at(x + right, y + down) !== label) return true;
      }
      return false;
    };
    const striped = pixel => stripes[(Math.floor(pixel / width) + pixel % width) % period < Math.floor(period / 2) ? 0 : 1];
    const colour = pixel => (ignored(pixel) ? striped(pixel) : colours.get(labels[pixel]) ?? 0);
    paint(document.querySelector(".fill"), width, height, colour);
    paint(document.querySelector(".edge"), width, height, pixel => (colours.has(labels[pixel]) && isEdge(pixel) ? colour(pixel) : 0));
    const seen = new Set(labels);
    const entries = key.filter(([label]) => page.classes === null || seen.has(label));
    const hasIgnored = arrays.truth.includes(IGNORED) && ["truth", "errors"].includes(state.shows);
    $("key").replaceChildren(...[...entries, ...(hasIgnored ? [[IGNORED, STRIPES[1], "ignored"]] : [])].map(([label, fill, name]) => {
      const entry = document.createElement("span"), patch = document.createElement("i");
      patch.style.background = label === IGNORED ? `repeating-linear-gradient(45deg, ${STRIPES[0]} 0 2px, ${STRIPES[1]} 2px 4px)` : fill;
      entry.append(patch, name);
      return entry;
    }));
  };

  const changed = (a, b) => a.reduce((count, label, pixel) => count + (label !== b[pixel]), 0);
  const pixels = (count, of, one, many) =>
    (count ? `${grouped(count)} of ${grouped(of)} pixels (${percent(count / of)}) ${count === 1 ? one : many}` : `no pixel ${one}`);

  const drawMaskWords = () => {
    const sample = sampleNow(), [width, height] = sample.picture, size = width * height;
    const shrunk = width === sample.width ? "" : `, shown at ${width} x ${height}`;
    const score = sample.iou_of_stop[state.stop], trained = sample.iou_of_stop[0];
    const figure = value => (value === null ? "undefined" : value.toFixed(3));
    $("stem").textContent = sample.stem;
    $("iou").textContent = `IoU as trained ${figure(trained)}`;
    const parts = [`Image: pixels, x y of ${sample.width} x ${sample.height}${shrunk}.`];
    if (state.shows === "truth") parts.push(" Truth.");
    if (["mask", "errors"].includes(state.shows)) {
      parts.push(state.shows === "mask" ? " Mask " : page.classes === null ? " Errors of the mask " : " Wrong pixels, coloured by predicted class, of the mask ");
      if (stopNow().is_trained) {
        parts.push(`as trained${page.views.length ? `, ${stopNow().rule}` : ""}.`);
      } else {
        const count = changed(maskOf(state.stop), maskOf(0));
        parts.push(`under ${stopNow().rule}: ${pixels(count, size, "differs", "differ")} from that as trained; IoU ${figure(score)}.`, warning());
      }
    }
    say("caption", ...parts);
    if (page.views.length) say("recomputed", stopNow().is_trained ? "" : [`${stopNow().rule}: ${recomputed}`]);
  };

  const drawMarks = () => {
    const {width, height} = sampleNow(), [left, top, right, bottom] = boxOf(...cellNow());
    all(".mark").forEach(mark => {
      mark.hidden = false;
      mark.style.left = `${100 * left / width}%`;
      mark.style.top = `${100 * top / height}%`;
      mark.style.width = `${100 * (right - left) / width}%`;
      mark.style.height = `${100 * (bottom - top) / height}%`;
    });
  };

  const shareOfBar = (value, limit) => (value / limit) ** page.power;
  const ticksUpTo = limit => {
    const ticks = [0], highest = Math.floor(Math.log10(limit));
    for (const exponent of [highest - 2, highest - 1, highest]) {
      for (const value of [1, 2, 5].map(first => Number(`${first}e${exponent}`))) {
        const place = shareOfBar(value, limit);
        if (place <= 0.86 && place - shareOfBar(ticks.at(-1), limit) >= 0.16) ticks.push(value);
      }
    }
    return [...ticks, limit];
  };
  const drawBar = (id, table, limit, ticks, marker) => {
    const bar = $(id), place = value => 100 * shareOfBar(value, limit);
    paint(bar.querySelector("canvas"), 256, 1, pixel => colourOf(table, (pixel / 255) ** (1 / page.power)));
    all("span, i", bar).forEach(old => old.remove());
    ticks.forEach((value, number) => {
      const tick = document.createElement("span");
      tick.textContent = digits(value);
      tick.style.left = `${place(value)}%`;
      tick.className = number === 0 ? "first" : number === ticks.length - 1 ? "last" : "";
      bar.append(tick);
    });
    if (marker === null) return;
    const line = document.createElement("i");
    line.style.left = `${place(marker)}%`;
    bar.append(line);
  };

  const drawAttention = () => {
    const {grid, keys, pool, gamma} = viewNow(), view = arrays.views[state.view], sample = sampleNow();
    const {gate, plain, used, limit, roughness} = rowsNow(), gates = gateNow();
    const [row, column] = cellNow(), [left, top, right, bottom] = boxOf(row, column).map(Math.round);
    paintMap("plain", plain, keys, pool, value => colourOf("attention", value / limit));
    paintMap("used", used, keys, pool, value => colourOf("attention", value / limit));
    paintMap("roughness", view.roughness, grid, 1, value => colourOf("roughness", value));
    paintMap("gate", gates, grid, 1, grey);
    drawBar("attention-bar", "attention", limit, ticksUpTo(limit), null);
    const {threshold} = stopNow();
    drawBar("roughness-bar", "roughness", 1, ticksUpTo(1), threshold);
    drawMarks();

    const smoothed = gate === 0 ? "not smoothed" : gate === 1 ? "smoothed" : `smoothed by ${digits(gate)}`;
    const off = page.stops.findIndex(stop => stop.kind === "none"), without = maskOf(off);
    say("readout",
      `Row ${row + 1}, column ${column + 1} of ${grid[0]} x ${grid[1]} positions: x ${left} to ${right}, y ${top} to ${bottom} of ${sample.width} x ${sample.height}\u00a0px. `,
      `Roughness ${digits(roughness)}: ${smoothed}. gamma ${digits(gamma, 3)}`,
      page.stops[off].is_trained ? "." : `; without smoothing ${pixels(changed(without, maskOf(0)), without.length, "changes", "change")} in this mask.`);
    const cells = pool === 1 ? "" : `, sums of ${pool} x ${pool} keys`;
    const unit = values => `Attention, share of 1${cells}; ${range(values)}; row sums to ${total(values).toFixed(2)}.`;
    say("plain-caption", unit(plain));
    say("used-caption", `${unit(used)} `, gate === 0 ? "Not smoothed: the same." : gate === 1 ? "Smoothed: mean of 8 neighbours." : `Smoothed by ${digits(gate)}.`, warning());
    say("attention-unit", `One colour scale for both, 0 to ${digits(limit)}, by the square root of attention.`
      + (page.covered < 1 ? " The grid reaches beyond the image; attention out there is not drawn." : ""));
    say("roughness-caption", `Roughness, 0 to 1; here ${range(view.roughness)}.` + (threshold === null ? "" : ` The line is the threshold, ${threshold}.`));
    const open = total(gates), isStep = gates.every(share => share === 0 || share === 1);
    say("gate-caption", isStep
      ? `${ruleNow()}; ${grouped(open)} of ${grouped(gates.length)} positions, ${percent(open / gates.length)}.`
      : `${ruleNow()}; ${range(gates)}, mean ${digits(open / gates.length)}.`);
    const {step} = viewNow();
    say("coarse", [
      step > 1 ? `One position in ${step} along each axis can be chosen; a click goes to the nearest. ` : "",
      pool > 1 ? `Keys are summed in blocks of ${pool} x ${pool}, so that a row still sums to 1. ` : "",
      step > 1 || pool > 1 ? "More would make this file too large." : "",
    ].join(""));
  };

  const draw = () => {
    drawMask();
    drawMaskWords();
    if (page.views.length) drawAttention();
  };

  // --- what people do

  const show = async sample => {
    const turn = ++wanted;
    const {picture, image, stem} = page.samples[sample], found = await inflateSample(page.samples[sample]);
    if (turn !== wanted) return;
    arrays = found;
    state.sample = sample;
    all(".stage").forEach(stage => {
      stage.style.setProperty("--ratio", picture[0] / picture[1]);
      stage.classList.toggle("is-small", Math.max(...picture) < 400);
      const shown = stage.querySelector("img");
      shown.src = `data:image/jpeg;base64,${image}`;
      shown.alt = `${stem}: ${stage.dataset.map}`;
    });
    draw();
    document.body.dataset.sample = sample;  // drawn
  };

  const choosePoint = (x, y) => {
    state.points[state.sample] = [x, y];
    drawAttention();
  };
  const pixelAt = (stage, event) => {
    const box = stage.getBoundingClientRect(), {width, height} = sampleNow();
    return [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
  };
  const ARROWS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  const step = (down, right) => {
    const view = viewNow(), [row, column] = placeNow(), {width, height} = sampleNow();
    const to = (kept, place) => kept[Math.min(Math.max(place, 0), kept.length - 1)];
    const [left, top, farRight, bottom] = boxOf(to(view.rows, row + down), to(view.columns, column + right));
    if (left < width && top < height) choosePoint((left + farRight) / 2, (top + bottom) / 2);
  };

  const point = (stage, event) => {
    const [row, column] = cellAt(...pixelAt(stage, event)), view = viewNow(), rows = rowsNow();
    const key = Math.floor(row / view.pool) * view.keys[1] + Math.floor(column / view.pool);
    const at = row * view.grid[1] + column, gate = gateNow()[at];
    $("pointer").textContent = `Under the pointer: row ${row + 1}, column ${column + 1}. The position looks there with ${digits(rows.plain[key], 3)} of its attention before smoothing, ${digits(rows.used[key], 3)} as used. `
      + `Roughness there ${digits(arrays.views[state.view].roughness[at], 3)}, ${gate === 0 ? "not smoothed" : gate === 1 ? "smoothed" : `smoothed by ${digits(gate)}`}.`;
  };

  const listenToStages = () => all(".stage").forEach(stage => {
    if (stage.dataset.map !== "mask") stage.tabIndex = -1;
    stage.addEventListener("click", event => arrays && choosePoint(...pixelAt(stage, event)));
    stage.addEventListener("pointermove", event => {
      if (!arrays || event.pointerType !== "mouse") return;
      if (event.buttons === 1) choosePoint(...pixelAt(stage, event));
      point(stage, event);
    });
    stage.addEventListener("pointerleave", () => { $("pointer").textContent = ""; });
    stage.addEventListener("dragstart", event => event.preventDefault());
    stage.addEventListener("keydown", event => {
      const move = ARROWS[event.key];
      if (!arrays || !move || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      step(...move);
    });
  });

  const choose = stop => {
    state.stop = stop;
    const {kind, value} = stopNow();
    document.querySelector(`#rules [value=${kind}]`).checked = true;
    if (value !== null) nameSlider($(kind), value);
    draw();
  };
  const stopsOf = kind => page.stops.map((stop, number) => ({...stop, number})).filter(stop => stop.kind === kind);
  const nameSlider = (slider, value) => {
    slider.parentElement.querySelector("output").textContent = slider.id === "fraction" ? `${Math.round(100 * value)} %` : value.toFixed(2);
    slider.setAttribute("aria-valuetext", `${slider.id} ${value}`);
  };
  const listenToRules = () => {
    ["threshold", "fraction"].forEach(kind => {
      const slider = $(kind), stops = stopsOf(kind), start = stops.findIndex(stop => stop.is_trained);
      slider.max = stops.length - 1;
      slider.value = start >= 0 ? start : kind === "fraction" ? 2 : 3;
      nameSlider(slider, stops[slider.value].value);
      slider.addEventListener("input", () => choose(stops[slider.value].number));
    });
    all("#rules [name=rule]").forEach(button => button.addEventListener("change", () => {
      const stops = stopsOf(button.value), slider = $(button.value);
      choose(stops[slider ? slider.value : 0].number);
    }));
  };

  const listSamples = () => {
    const strip = document.querySelector(".strip");
    page.samples.forEach((sample, number) => {
      const label = document.createElement("label"), button = document.createElement("input");
      const image = document.createElement("img"), name = document.createElement("b"), score = document.createElement("span");
      Object.assign(button, {type: "radio", name: "sample", value: number, checked: number === state.sample});
      Object.assign(image, {src: `data:image/jpeg;base64,${sample.image}`, alt: ""});
      name.textContent = label.title = sample.stem;
      const [trained] = sample.iou_of_stop;
      score.textContent = trained === null ? "IoU undefined" : `IoU ${trained.toFixed(3)}`;
      label.append(button, image, name, score);
      button.addEventListener("change", () => show(number));
      strip.append(label);
    });
  };

  const listen = () => {
    all("[name=shows]").forEach(button => button.addEventListener("change", () => {
      state.shows = button.value;
      drawMask();
      drawMaskWords();
    }));
    const opacity = () => {
      document.querySelector(".fill").style.opacity = $("opacity").value / 100;
      document.querySelector(".edge").style.opacity = Math.min(1, $("opacity").value / 50);
    };
    $("opacity").addEventListener("input", opacity);
    opacity();
    if (!page.views.length) return;
    listenToStages();
    listenToRules();
    $("maps-opacity").addEventListener("input", () => document.body.style.setProperty("--maps", $("maps-opacity").value / 100));
    $("view").addEventListener("change", () => {
      state.view = Number($("view").value);
      drawAttention();
    });
  };

  // --- for the console and for tests: everything that is shown, as numbers
  window.look = {
    page,
    get stem() { return sampleNow().stem; },
    get view() { return viewNow().name; },
    get rule() { return stopNow().rule; },
    get position() { const [row, column] = cellNow(); return row * viewNow().grid[1] + column; },
    get box() { return boxOf(...cellNow()); },
    get rows() { return rowsNow(); },  // plain and used, over the keys; limit of their colours
    get roughness() { return [...arrays.views[state.view].roughness]; },
    get gate() { return [...gateNow()]; },
    get mask() { return [...maskOf(state.stop)]; },  // labels at the picture's size, row by row
    get truth() { return [...arrays.truth]; },
  };

  if (typeof DecompressionStream === "undefined") {
    $("trouble").textContent = "This browser can't inflate data (DecompressionStream, 2023); open the page in a newer one.";
    $("trouble").hidden = false;
    return;
  }
  listSamples();
  listen();
  show(0);
})();
