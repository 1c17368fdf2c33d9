// Draws the charts from the data in the page, each when it comes near, and switches between light and dark.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const planColor = (row) => (data.reference[row] ? color("c0") : color(`c${1 + ((row + 8) % 9)}`));
  // Lines also differ in their dashes and points in their shapes: colour alone is not enough for everybody.
  const shape = (row) => ["circle", "rect", "triangle", "rectRot", "rectRounded"][row % 5];
  const dash = (row) => [[], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4]][row % 5];
  const text = (v, percent) => {
    if (percent) return `${(100 * v).toFixed(1)} %`;
    const a = Math.abs(v);
    if (a !== 0 && (a < 1e-3 || a >= 1e9)) {
      const [digits, exponent] = v.toExponential(2).split("e");
      return `${Number(digits)}×10${[...exponent.replace("+", "")].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)]).join("")}`.replace("1×10", "10");
    }
    return a >= 999.5 ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(3)));
  };
  const tick = (v, percent) => (percent ? `${Number((100 * v).toFixed(1))} %` : text(v));
  const bytes = (v) => (v >= 1e9 ? `${text(v / 1e9)} GB` : v >= 1e6 ? `${text(v / 1e6)} MB` : `${text(v / 1e3)} kB`);

  // Whiskers from lo to hi at each point that has them, by axis: over the marks, or under them where they are faint.
  const drawWhiskers = (chart, faint) => {
    const { ctx, chartArea: area, scales } = chart;
    ctx.save();
    ctx.beginPath();
    ctx.rect(area.left, area.top, area.width, area.height);
    ctx.clip();
    chart.data.datasets.forEach((set, i) => {
      const meta = chart.getDatasetMeta(i);
      if (!set.whiskers || meta.hidden || Boolean(set.faint) !== faint) return;
      ctx.strokeStyle = set.whiskerColor || set.borderColor || color("ink");
      ctx.lineWidth = faint ? 1 : 1.5;
      meta.data.forEach((element, k) => {
        for (const axis of Object.keys(set.whiskers)) {
          const range = set.whiskers[axis][k];
          if (!range) continue;
          const [a, b] = range.map((v) => scales[axis].getPixelForValue(v));
          const at = axis === "x" ? element.y : element.x;
          const line = (x0, y0, x1, y1) => { ctx.beginPath(); ctx.moveTo(x0, y0); ctx.lineTo(x1, y1); ctx.stroke(); };
          if (axis === "x") { line(a, at, b, at); line(a, at - 4, a, at + 4); line(b, at - 4, b, at + 4); }
          else { line(at, a, at, b); line(at - 4, a, at + 4, a); line(at - 4, b, at + 4, b); }
        }
      });
    });
    ctx.restore();
  };
  const whiskers = { id: "whiskers", beforeDatasetsDraw: (chart) => drawWhiskers(chart, true), afterDatasetsDraw: (chart) => drawWhiskers(chart, false) };

  // Text over lines stays readable on a rim of the page's colour.
  const rimmedText = (ctx, words, x, y, ink) => {
    ctx.lineJoin = "round";
    ctx.lineWidth = 4;
    ctx.strokeStyle = color("surface");
    ctx.strokeText(words, x, y);
    ctx.fillStyle = ink;
    ctx.fillText(words, x, y);
  };
  const plainFont = () => `12px ${getComputedStyle(document.body).fontFamily}`;

  // Names beside points, moved up or down until they do not overlap.
  const names = {
    id: "names",
    afterDatasetsDraw(chart) {
      const { ctx, chartArea: area } = chart;
      const taken = chart.data.datasets.flatMap((set, i) => (set.names ? chart.getDatasetMeta(i).data.map((e) => [e.x - 6, e.x + 6, e.y]) : []));
      ctx.save();
      ctx.font = plainFont();
      for (const line of (chart.config.options.limits ?? []).filter((one) => one.textAt !== undefined)) taken.push([area.left + 8, area.left + 8 + ctx.measureText(line.text).width, line.textAt]);
      chart.data.datasets.forEach((set, i) => {
        if (!set.names) return;
        chart.getDatasetMeta(i).data.forEach((element, k) => {
          const width = ctx.measureText(set.names[k]).width;
          const left = element.x + 10 + width > area.right ? element.x - 10 - width : element.x + 10;
          let y = element.y;
          for (const shift of [0, -11, 11, -14, 14, -28, 28, -42, 42, -56, 56]) {
            y = element.y + shift;
            const free = taken.every((t) => left + width < t[0] || t[1] < left || Math.abs(t[2] - y) > 13);
            if (free && y > area.top + 6 && y < area.bottom - 6) break;
          }
          taken.push([left, left + width, y]);
          ctx.textBaseline = "middle";
          rimmedText(ctx, set.names[k], left, y, color("ink"));
        });
      });
      ctx.restore();
    },
  };

  const axis = (title, more) => Object.assign({
    title: { display: Boolean(title), text: title, color: color("muted") },
    grid: { color: color("line"), borderColor: color("line") },
    ticks: { color: color("muted") },
  }, more);
  const range = (p) => (p && p.lo !== undefined ? [p.lo, p.hi] : null);
  const base = (options) => Object.assign({ responsive: true, maintainAspectRatio: false, animation: false }, options);
  const legend = (display) => ({ display, position: "bottom", labels: { color: color("muted"), usePointStyle: true, boxHeight: 7 } });

  // Stars in place of the marks of a set, under those of what was measured.
  const stars = {
    id: "stars",
    beforeDatasetsDraw(chart) {
      const { ctx } = chart;
      ctx.save();
      ctx.font = `17px ${getComputedStyle(document.body).fontFamily}`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      chart.data.datasets.forEach((set, i) => {
        if (!set.stars || chart.getDatasetMeta(i).hidden) return;
        for (const element of chart.getDatasetMeta(i).data) { ctx.fillStyle = set.stars; ctx.fillText("☆", element.x, element.y); }
      });
      ctx.restore();
    },
  };

  function dots(spec) {
    // Several series share a row: each gets its own lane around the row's middle.
    const lanes = spec.series.length, palette = lanes > 1 ? ["c2", "c1", "c3", "c4"] : ["c1"];
    const positive = spec.series.flatMap((s) => s.points).filter((p) => p && p.v > 0).map((p) => p.v);
    const floor = spec.log ? 10 ** Math.floor(Math.log10(Math.min(...positive, 1)) - 0.5) : 0;
    const highest = Math.max(...spec.series.flatMap((s) => s.points).map((p) => (p ? p.hi ?? p.v : 0)));
    const at = (v) => (spec.log ? Math.max(v, floor) : v);
    const sets = spec.series.map((s, i) => {
      const shown = s.points.map((p, row) => ({ p, row })).filter(({ p }) => p);
      return {
        label: s.name, borderColor: color(palette[i % palette.length]), backgroundColor: color(palette[i % palette.length]),
        pointRadius: 5, pointHoverRadius: 6, clip: 8,
        data: shown.map(({ p, row }) => ({ x: at(p.v), y: row + (lanes > 1 ? 0.16 * (i - (lanes - 1) / 2) : 0), p, row })),
        whiskers: { x: shown.map(({ p }) => { const r = range(p); return r && [at(r[0]), r[1]]; }) },
      };
    });
    // What others published for the same, as stars in the lane of what was measured.
    spec.series.forEach((s, i) => {
      if (!s.published) return;
      sets.push({
        label: `☆ published, ${s.name}`, stars: color(palette[i % palette.length]), pointRadius: 7, pointHoverRadius: 7, borderColor: "transparent", backgroundColor: "transparent",
        data: s.published.map((p, row) => ({ p, row })).filter(({ p }) => p).map(({ p, row }) => ({ x: p.v, y: sets[i].data.find((d) => d.row === row)?.y ?? row, published: p.text, row })),
      });
    });
    return {
      type: "scatter", data: { datasets: sets }, plugins: [whiskers, stars],
      options: base({
        scales: {
          x: axis("", { type: spec.log ? "logarithmic" : "linear", beginAtZero: spec.percent, min: spec.log ? floor : undefined, max: spec.percent ? 1 : spec.log ? Math.max(1.5 * highest, 10 * floor) : undefined,
            ticks: { color: color("muted"), callback: (v) => (spec.log && v === floor ? "0" : spec.log && Math.abs(Math.log10(v) % 1) > 1e-9 ? null : tick(v, spec.percent)) } }),
          y: axis("", { min: -0.5, max: data.labels.length - 0.5, reverse: true, afterBuildTicks: (a) => { a.ticks = data.labels.map((_, value) => ({ value })); },
            grid: { display: false, borderColor: color("line") }, ticks: { color: color("ink"), callback: (v) => data.labels[v], autoSkip: false } }),
        },
        plugins: { legend: legend(sets.length > 1), tooltip: { callbacks: { label: (c) => {
          if (c.raw.published) return `published, not measured here: ${c.raw.published}`;
          const { p, row } = c.raw, r = range(p);
          return `${data.labels[row]}, ${c.dataset.label}: ${text(p.v, spec.percent)}${r ? ` [${text(r[0], spec.percent)}, ${text(r[1], spec.percent)}]` : ""}`;
        } } } },
      }),
    };
  }

  function bars(spec) {
    // Room for whiskers, unless an interval is so wide that it would hide the bars.
    const tallest = Math.max(...spec.points.map((p) => (p ? p.v : 0))), widest = Math.max(...spec.points.map((p) => (p ? p.hi ?? p.v : 0)));
    return {
      type: "bar", plugins: [whiskers],
      data: { labels: data.labels, datasets: [{
        data: spec.points.map((p) => (p ? p.v : null)), backgroundColor: data.labels.map((_, i) => planColor(i)), barPercentage: 0.72,
        whiskers: { x: spec.points.map(range) }, whiskerColor: color("ink"),
      }] },
      options: base({ indexAxis: "y", scales: { x: axis("tokens/s", { beginAtZero: true, suggestedMax: Math.min(1.04 * widest, 1.4 * tallest) }), y: axis("", { grid: { display: false, borderColor: color("line") }, ticks: { color: color("ink"), autoSkip: false } }) },
        plugins: { legend: legend(false), tooltip: { callbacks: { label: (c) => {
          const p = spec.points[c.dataIndex], r = range(p);
          return `${text(p.v)} tokens/s${r ? ` [${text(r[0])}, ${text(r[1])}]` : ""}`;
        } } } } }),
    };
  }

  function stack(spec) {
    const sets = spec.series.map((s, i) => ({ label: s.name, data: s.values, backgroundColor: color(s.color || `c${i % 10}`), stack: "taken", barPercentage: 0.72 }));
    if (spec.peaks) sets.push({ type: "line", label: spec.peaks_name || "measured peak", data: spec.peaks, stack: "measured", showLine: false, order: -1,
      pointStyle: "rectRot", pointRadius: 6, backgroundColor: color("bad"), borderColor: color("surface") });
    return {
      type: "bar", data: { labels: data.labels, datasets: sets },
      options: base({ indexAxis: "y", scales: { x: axis(spec.x_title, { stacked: true, beginAtZero: true }), y: axis("", { stacked: true, grid: { display: false, borderColor: color("line") }, ticks: { color: color("ink"), autoSkip: false } }) },
        plugins: { legend: legend(true), tooltip: { callbacks: { label: (c) => `${c.dataset.label}: ${text(c.raw)} ${spec.x_title}` } } } }),
    };
  }

  // Dashed lines across the picture: what must not be passed, or what to compare with.
  function drawLimits(chart, wanted) {
    const { ctx, chartArea: area, scales } = chart;
    for (const limit of (chart.config.options.limits ?? []).filter(wanted)) {
      const y = scales.y.getPixelForValue(limit.value);
      if (!(y > area.top && y < area.bottom)) continue;
      const ink = color(limit.published ? "muted" : "bad");
      ctx.save();
      ctx.strokeStyle = ink;
      ctx.setLineDash(limit.published ? [2, 3] : [6, 4]);
      ctx.beginPath(); ctx.moveTo(area.left, y); ctx.lineTo(area.right, y); ctx.stroke();
      ctx.setLineDash([]);
      ctx.font = plainFont();
      // Above the line, unless a mark is there and none below.
      const right = area.left + 8 + ctx.measureText(limit.text).width;
      const marks = chart.data.datasets.flatMap((set, i) => (set.names ? chart.getDatasetMeta(i).data : [])).filter((e) => e.x < right + 8);
      const isFree = (middle) => marks.every((e) => Math.abs(e.y - middle) > 13);
      limit.textAt = !isFree(y - 10) && isFree(y + 11) ? y + 11 : y - 10;
      ctx.textBaseline = "middle";
      rimmedText(ctx, limit.text, area.left + 8, limit.textAt, ink);
      ctx.restore();
    }
  }
  const limits = {
    id: "limits",
    beforeDatasetsDraw: (chart) => drawLimits(chart, (limit) => limit.published),
    afterDatasetsDraw: (chart) => drawLimits(chart, (limit) => !limit.published),
  };
  // What others published, as lines at a score, under what was measured.
  const publishedLines = (spec) => (spec.published ?? []).map((line) => ({ ...line, published: true }));

  function pareto(spec) {
    const positive = spec.points.filter((p) => p.y.v > 0).map((p) => p.y.v);
    const floor = spec.y_log ? 10 ** Math.floor(Math.log10(Math.min(...positive, 1)) - 0.5) : 0;
    const lines = publishedLines(spec), heights = lines.map((line) => line.value);
    const lows = spec.points.map((p) => p.y.lo ?? p.y.v).concat(heights), highs = spec.points.map((p) => p.y.hi ?? p.y.v).concat(heights);
    const pad = 0.08 * (Math.max(...highs) - Math.min(...lows) || 0.1);
    const y = (v) => (spec.y_log ? Math.max(v, floor) : v);
    const isBytes = spec.x_title.endsWith("bytes");
    const front = spec.points.filter((p) => p.front).sort((a, b) => a.x.v - b.x.v);
    const points = spec.points.map((p) => ({ x: p.x.v, y: y(p.y.v), p }));
    const xs = spec.points.map((p) => p.x.v), span = Math.max(...xs) - Math.min(...xs) || Math.max(...xs);
    return {
      type: "scatter", plugins: [whiskers, limits, names],
      data: { datasets: [
        { label: "plans", data: points, names: spec.points.map((p) => data.labels[p.row]), pointStyle: spec.points.map((p) => shape(p.row)), pointRadius: 6, pointHoverRadius: 7,
          backgroundColor: spec.points.map((p) => (p.front ? planColor(p.row) : color("surface"))), borderColor: spec.points.map((p) => planColor(p.row)), borderWidth: 2,
          whiskerColor: color("whisker"), faint: true, clip: 10,
          whiskers: { x: spec.points.map((p) => range(p.x)), y: spec.points.map((p) => { const r = range(p.y); return r && [y(r[0]), y(r[1])]; }) } },
        { label: "front", type: "line", data: front.map((p) => ({ x: p.x.v, y: y(p.y.v) })), borderColor: color("accent"), borderWidth: 1.5, borderDash: [5, 4], pointRadius: 0,
          stepped: spec.x_better === "right" ? "after" : "before" },
      ] },
      options: base({
        limits: lines,
        scales: {
          x: axis(`${spec.x_title} (${spec.x_better === "right" ? "more" : "less"} is better)`, { min: Math.max(0, Math.min(...xs) - 0.12 * span), max: Math.max(...xs) + 0.25 * span,
            ticks: { color: color("muted"), maxTicksLimit: 7, includeBounds: false, callback: (v) => (isBytes ? bytes(v) : text(v)) } }),
          y: axis(spec.y_title, { type: spec.y_log ? "logarithmic" : "linear", reverse: spec.y_log,
            min: spec.y_log ? floor : Math.max(0, Math.min(...lows) - pad), max: spec.y_log ? Math.max(2 * Math.max(...highs), 10 * floor) : Math.min(spec.y_percent ? 1 : Infinity, Math.max(...highs) + pad),
            ticks: { color: color("muted"), includeBounds: Boolean(spec.y_log), callback: (v) => (spec.y_log ? (v === floor ? "0" : Math.abs(Math.log10(v) % 1) < 1e-9 ? text(v) : null) : tick(v, spec.y_percent)) } }),
        },
        plugins: { legend: legend(false), tooltip: { filter: (c) => c.datasetIndex === 0, callbacks: { label: (c) => {
          const p = c.raw.p;
          const within = (metric, say) => (range(metric) ? ` [${range(metric).map(say).join(", ")}]` : "");
          const x = (v) => (isBytes ? bytes(v) : text(v)), yText = (v) => text(v, spec.y_percent);
          return [data.labels[p.row], `${spec.x_title}: ${x(p.x.v)}${within(p.x, x)}`, `${spec.y_title}: ${yText(p.y.v)}${within(p.y, yText)}`, p.front ? "on the front" : "beaten by another plan"];
        } } } },
      }),
    };
  }

  const lineOf = (s) => ({ label: data.labels[s.row], data: s.points.map(([x, y]) => ({ x, y })), borderColor: planColor(s.row), backgroundColor: planColor(s.row), borderWidth: 2, borderDash: dash(s.row) });
  const logTick = (v, percent) => (Math.abs(Math.log10(v) % 1) < 1e-9 || Math.abs(Math.log10(v / 2) % 1) < 1e-9 || Math.abs(Math.log10(v / 5) % 1) < 1e-9 ? tick(v, percent) : null);

  function distribution(spec) {
    // Plans that differ tenfold share a picture only on a logarithmic axis.
    const medians = spec.series.map((s) => s.points[Math.floor(s.points.length / 2)][0]).filter((v) => v > 0);
    const isLog = Math.max(...medians) > 8 * Math.min(...medians);
    return {
      type: "line",
      data: { datasets: spec.series.map((s) => ({ ...lineOf(s), pointRadius: 0, stepped: "after" })) },
      options: base({ parsing: false, interaction: { mode: "nearest", axis: "y" },
        scales: { x: axis(spec.x_title, isLog ? { type: "logarithmic", ticks: { color: color("muted"), callback: (v) => logTick(v) } } : { type: "linear", beginAtZero: true }), y: axis("", { type: "linear", min: 0, max: 1, ticks: { color: color("muted"), callback: (v) => tick(v, true) } }) },
        plugins: { legend: legend(true), tooltip: { callbacks: { title: () => "", label: (c) => `${c.dataset.label}: ${text(c.raw.y, true)} within ${text(c.raw.x)} ms` } } } }),
    };
  }

  function curve(spec) {
    const isKnee = (s, i) => s.knee === i;
    const lines = publishedLines(spec);
    const scale = (title, isLog, isPercent, shown = []) => axis(title, isLog
      ? { type: "logarithmic", ticks: { color: color("muted"), callback: (v) => logTick(v, isPercent) } }
      : { type: "linear", beginAtZero: true, suggestedMax: shown.length ? Math.max(...shown.map((line) => line.value)) * 1.04 : undefined, ticks: { color: color("muted"), callback: (v) => tick(v, isPercent) } });
    return {
      type: "line", plugins: [limits],
      data: { datasets: spec.series.map((s) => ({ ...lineOf(s), stepped: spec.stepped ? "after" : false,
        pointStyle: s.points.map((_, i) => (isKnee(s, i) ? "star" : shape(s.row))), pointRadius: s.points.map((_, i) => (spec.stepped ? 0 : isKnee(s, i) ? 9 : 3.5)),
        pointBorderWidth: s.points.map((_, i) => (isKnee(s, i) ? 2.5 : 1)) })) },
      options: base({ parsing: false, limits: (spec.limits ?? []).concat(lines), interaction: { mode: "nearest", intersect: false },
        scales: { x: scale(spec.x_title, spec.x_log), y: scale(spec.y_title, spec.y_log, spec.y_percent, lines) },
        plugins: { legend: legend(true), tooltip: { callbacks: { title: () => "", label: (c) => `${c.dataset.label}: ${text(c.raw.x)}, ${text(c.raw.y, spec.y_percent)}${spec.series[c.datasetIndex].knee === c.dataIndex ? " (knee)" : ""}` } } } }),
    };
  }

  const kinds = { dots, bars, stack, pareto, distribution, curve };
  const drawn = new Map();  // figure -> chart
  function draw(figure) {
    drawn.get(figure)?.destroy();
    const spec = data.charts[figure.dataset.chart];
    drawn.set(figure, new Chart(figure.querySelector("canvas"), kinds[spec.kind](spec)));
  }
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 12;
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "600px" });
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  for (const figure of figures) {
    const spec = data.charts[figure.dataset.chart];
    const empty = !spec || (spec.series && !spec.series.length) || (spec.points && !spec.points.some(Boolean));
    figure.hidden = Boolean(empty);
    if (empty) { figure.remove(); continue; }
    const rowHeight = spec.kind === "dots" && spec.series.length > 1 ? 44 : 34;
    if (["dots", "bars", "stack"].includes(spec.kind)) figure.querySelector(".canvas").style.height = `${74 + rowHeight * data.labels.length}px`;
    near.observe(figure);
  }
  const drawAgain = () => { for (const figure of drawn.keys()) draw(figure); };
  // On paper every chart is seen, at paper's width.
  addEventListener("beforeprint", () => { for (const figure of figures) if (figure.isConnected && !drawn.has(figure)) draw(figure); for (const chart of drawn.values()) chart.resize(); });

  addEventListener("themechange", drawAgain);  // from page_tools.js
})();
