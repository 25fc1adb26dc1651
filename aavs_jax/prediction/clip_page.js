"use strict";
// The player of a clip's page. Names stand in the page already; here are numbers only.
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const clip = JSON.parse(byId("clip").textContent);
  const video = byId("film"), canvas = byId("masks"), line = byId("line"), slider = byId("opacity");
  const context = canvas.getContext("2d");
  const [rows, columns] = clip.grid, [width, height] = clip.size;
  const thick = Math.max(1, Math.round(Math.min(width, height) / 240));
  const shown = clip.colours.map(() => true);
  let current = -1, labels = new Uint8Array(width * height);

  // ---- the film: text to bytes, piece by piece

  function bytesOf(text) {
    const parts = [], step = 4 * 262144;
    for (let at = 0; at < text.length; at += step) {
      const piece = atob(text.slice(at, at + step)), part = new Uint8Array(piece.length);
      for (let i = 0; i < piece.length; i++) part[i] = piece.charCodeAt(i);
      parts.push(part);
    }
    return parts;
  }
  const film = new Blob(bytesOf(byId("bytes").textContent), { type: "video/mp4" });
  byId("bytes").remove();
  video.src = URL.createObjectURL(film);

  // ---- masks: a grid of class ids, enlarged with smooth outlines, then painted

  function gridOf(runs) { // class id, length, class id, length, ...
    const grid = new Uint8Array(rows * columns);
    for (let i = 0, at = 0; i < runs.length; i += 2) {
      grid.fill(runs[i], at, at + runs[i + 1]);
      at += runs[i + 1];
    }
    return grid;
  }

  function places(size, of) { // of each pixel: the two points of the grid beside it, and how far
    const before = new Int32Array(size), after = new Int32Array(size), part = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const at = Math.min(of - 1, Math.max(0, ((i + 0.5) * of) / size - 0.5));
      before[i] = Math.floor(at);
      after[i] = Math.min(of - 1, before[i] + 1);
      part[i] = at - before[i];
    }
    return [before, after, part];
  }
  const [left, right, across] = places(width, columns), [above, below, down] = places(height, rows);

  function enlarge(grid) { // the class with the greatest bilinear share wins each pixel
    for (let y = 0, i = 0; y < height; y++) {
      const top = above[y] * columns, bottom = below[y] * columns, v = down[y];
      for (let x = 0; x < width; x++, i++) {
        const a = grid[top + left[x]], b = grid[top + right[x]];
        const c = grid[bottom + left[x]], d = grid[bottom + right[x]];
        if (a === b && a === c && a === d) { labels[i] = a; continue; }
        const u = across[x], shares = [(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v];
        const ids = [a, b, c, d];
        let best = 0, most = -1;
        for (const id of ids) {
          let share = 0;
          for (let n = 0; n < 4; n++) if (ids[n] === id) share += shares[n];
          if (share > most) { most = share; best = id; }
        }
        labels[i] = best;
      }
    }
  }

  function paint() {
    const image = context.createImageData(width, height), data = image.data;
    const tint = (255 * slider.value) / 100, edge = Math.min(255, 2.2 * tint);
    const differs = (x, y, id) =>
      x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] !== id;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const id = labels[i];
        if (id === 0 || !shown[id]) continue;
        const outline = differs(x - thick, y, id) || differs(x + thick, y, id) ||
          differs(x, y - thick, id) || differs(x, y + thick, id);
        const colour = clip.colours[id];
        data[4 * i] = colour[0];
        data[4 * i + 1] = colour[1];
        data[4 * i + 2] = colour[2];
        data[4 * i + 3] = outline ? edge : tint;
      }
    }
    context.putImageData(image, 0, 0);
  }

  function nearest(seconds) { // index of the mark, -1 where there is none
    let low = 0, high = clip.times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (clip.times[middle] < seconds) low = middle + 1; else high = middle;
    }
    if (low > 0 && seconds - clip.times[low - 1] <= clip.times[low] - seconds) low--;
    return high < 0 ? -1 : low;
  }

  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

  function update() {
    const seconds = video.currentTime, index = nearest(seconds);
    byId("head").style.left = `${Math.min(100, (100 * seconds) / clip.duration)}%`;
    byId("time").textContent = seconds.toFixed(2);
    line.setAttribute("aria-valuenow", seconds.toFixed(2));
    line.setAttribute("aria-valuetext", `${seconds.toFixed(2)} seconds`);
    if (index < 0 || index === current) return;
    current = index;
    enlarge(gridOf(clip.runs[index]));
    paint();
    for (const place of all("[data-now]")) {
      const found = clip.found[index].find(([id]) => id === Number(place.dataset.now));
      place.textContent = found ? `${found[1].toFixed(2)} · ${percent(found[2])}` : "–";
    }
  }

  function follow() {
    update();
    if (!video.paused && !video.ended) requestAnimationFrame(follow);
  }
  video.addEventListener("play", follow);
  for (const event of ["loadeddata", "seeking", "seeked", "timeupdate", "pause"]) {
    video.addEventListener(event, update);
  }

  for (const box of all("[data-class]")) {
    shown[box.dataset.class] = box.checked; // some browsers keep what was chosen before
    box.addEventListener("change", () => { shown[box.dataset.class] = box.checked; paint(); });
  }
  slider.addEventListener("input", paint);

  // ---- the timeline

  function draw(place, work) { // at the screen's own resolution
    const scale = window.devicePixelRatio || 1, box = place.getBoundingClientRect();
    place.width = Math.max(1, Math.round(box.width * scale));
    place.height = Math.max(1, Math.round(box.height * scale));
    work(place.getContext("2d"), place.width, place.height);
  }

  function drawWave(pen, wide, high) {
    const peaks = clip.peaks, loudest = Math.max(50, ...peaks);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    for (let x = 0; x < wide; x++) {
      const from = Math.floor((x * peaks.length) / wide);
      const to = Math.max(from + 1, Math.floor(((x + 1) * peaks.length) / wide));
      const tall = Math.max(1, (high * Math.max(0, ...peaks.slice(from, to))) / loudest);
      pen.fillRect(x, (high - tall) / 2, 1, tall);
    }
  }

  function drawLane(pen, wide, high, id) {
    const times = clip.times, found = clip.found.map((list) => list.find(([k]) => k === id));
    const most = Math.max(...found.map((one) => (one ? one[2] : 0)));
    const x = (seconds) => (wide * Math.min(clip.duration, Math.max(0, seconds))) / clip.duration;
    pen.fillStyle = `rgb(${clip.colours[id].join(",")})`;
    found.forEach((one, i) => {
      if (!one) return;
      const begin = i ? x((times[i - 1] + times[i]) / 2) : 0;
      const end = i + 1 < times.length ? x((times[i] + times[i + 1]) / 2) : wide;
      const tall = Math.max(2, (high * one[2]) / most);
      pen.globalAlpha = 0.25 + 0.75 * one[1];
      pen.fillRect(begin, high - tall, Math.max(0.5, end - begin), tall);
    });
  }

  function drawAll() {
    draw(byId("wave"), drawWave);
    for (const lane of all("[data-lane]")) {
      draw(lane, (pen, wide, high) => drawLane(pen, wide, high, Number(lane.dataset.lane)));
    }
  }
  new ResizeObserver(drawAll).observe(line);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  // ---- going to a moment

  function go(seconds) {
    // A little later than a frame begins, as browsers round down to the frame before.
    const end = Math.max(0, (video.duration || clip.duration) - 0.001);
    video.currentTime = Math.min(end, Math.max(0, seconds + 0.001));
    update();
  }
  function goTo(event) {
    const box = line.getBoundingClientRect();
    go((clip.duration * (event.clientX - box.left)) / box.width);
  }
  line.addEventListener("pointerdown", (event) => {
    line.setPointerCapture(event.pointerId);
    goTo(event);
  });
  line.addEventListener("pointermove", (event) => {
    if (line.hasPointerCapture(event.pointerId)) goTo(event);
  });

  function step(by) {
    if (!clip.times.length) return;
    video.pause();
    const last = clip.times.length - 1;
    go(clip.times[Math.min(last, Math.max(0, nearest(video.currentTime) + by))]);
  }
  // Before the player's own keys, which would leap by seconds.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === slider) return;
    const keys = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      Home: () => step(-Infinity),
      End: () => step(Infinity),
    };
    if (event.key === " " && !event.target.closest("input, video, summary")) {
      keys[" "] = () => (video.paused ? video.play() : video.pause());
    }
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  }, true);

  update();
})();
