// The item browser: an index of all items, filters over it, and transcripts side by side, unpacked when somebody looks.
// Text of a model or a dataset only ever becomes textContent.
(() => {
  "use strict";
  const holder = document.getElementById("item-data");
  if (!holder || typeof DecompressionStream === "undefined") return;
  const data = JSON.parse(holder.textContent);
  const list = document.getElementById("item-list"), form = document.getElementById("filter");
  const search = form.querySelector("input[type=search]"), flippedOnly = form.querySelector("input[type=checkbox]");
  const select = Object.fromEntries([...form.querySelectorAll("select")].map((one) => [one.name, one]));
  const kRows = 40;  // drawn at a time
  const isReference = (answer) => data.reference_of[answer[0]] === answer[0];

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  async function unpack(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }
  // The transcripts stand at the page's end, so that the list need not wait for megabytes of them.
  const parsed = new Promise((resolve) => { if (document.readyState === "loading") addEventListener("DOMContentLoaded", resolve); else resolve(); });
  const chunks = [];
  const chunk = (i) => (chunks[i] ??= parsed.then(() => unpack(document.getElementsByClassName("item-chunk")[i].textContent)));
  const itemOf = async (number) => (await chunk(Math.floor(number / data.chunk_items)))[number % data.chunk_items];

  // --- one item ---------------------------------------------------------------------------------------------------

  // Where `text` leaves `base`, as [begin, end, name] of the first word that is not the same; null if none is.
  function firstWord(text, base) {
    if (text === base) return null;
    let at = 0;
    while (at < text.length && at < base.length && text[at] === base[at]) ++at;
    while (at > 0 && !/\s/.test(text[at - 1])) --at;
    return [at, at + /^\s*\S*/.exec(text.slice(at))[0].length, "word"];
  }
  // The same in text 0 (thinking) or 1 (final message) of an answer: its first token that differs where that is known.
  function firstDifference(answer, which, text, base) {
    const [, field, begin, length] = answer[10] ?? [];
    return field === which ? [begin, begin + length, "token"] : firstWord(text[which], base[which]);
  }
  function marked(text, where) {
    const pre = make("pre", { dir: "auto" });
    if (!where) { pre.textContent = text; return pre; }
    const [begin, end, name] = where, first = text.slice(begin, end);
    pre.append(text.slice(0, begin));
    if (first) pre.append(make("mark", { class: "first", title: `the first ${name} that differs from the reference` }, first));
    if (text.length > end) pre.append(make("mark", {}, text.slice(end)));
    return pre;
  }

  // Answers of one effort and repeat, with those of the same text in one column; the reference first.
  function columnsOf(answers) {
    const columns = new Map();
    for (const answer of answers) {
      const key = `${answer[3]} ${answer[5] ?? `none ${answer[8]}`}`;
      if (!columns.has(key)) columns.set(key, []);
      columns.get(key).push(answer);
    }
    const has = (column) => column.some(isReference);
    return [...columns.values()].sort((a, b) => has(b) - has(a));
  }

  function articleOf(column, texts, base) {
    const [first] = column, verdict = data.verdicts[first[3]];
    const isBase = column.some(isReference), text = texts[first[5]];
    const flipped = column.some((a) => a[4]);
    const header = make("header", {}, ...column.map((a) => make("span", { class: "plan" }, data.plans[a[0]])),
      make("span", { class: `verdict v-text-${verdict}` }, verdict + (flipped ? ", flipped" : "")));
    const small = make("small", {}, `answer ${first[8] || "–"} · ${first[6]} tokens${first[7] ? ` · ${first[7]} ms` : ""}`);
    const article = make("article", { class: `v-edge-${verdict}` }, header, small);
    if (!text) { article.append(make("p", { class: "none" }, "transcript in report.json")); return article; }
    const [inThinking, inFinal] = [0, 1].map((which) => (base && !isBase ? firstDifference(first, which, text, base) : null));
    if (base && !isBase && first[10]) small.append(` · leaves the reference at token ${first[10][0] + 1}`);
    else if (inThinking || inFinal) {
      const before = (inThinking ? text[0] : text[1]).slice(0, (inThinking ?? inFinal)[0]);
      small.append(` · leaves the reference at word ${before.split(/\s+/).filter(Boolean).length + 1} of its ${inThinking ? "thinking" : "final"}`);
    }
    if (text[0]) article.append(marked(text[0], inThinking));
    let final;
    if (first[9]) final = make("pre", { class: "none" }, "text kept back, as the dataset's authors ask");
    else if (!text[1]) final = make("pre", { class: "none" }, "no final message");
    else final = marked(text[1], inFinal);
    final.classList.add("final");
    article.append(final);
    return article;
  }

  function fill(details, number, item) {
    const [expected, question, choices, texts, answers] = item;
    const row = index[number], body = make("div", { class: "body" });
    const link = `#item=${encodeURIComponent(data.tasks[row[0]])}/${encodeURIComponent(row[1])}`;
    body.append(make("p", { class: "full", dir: "auto" }, question || row[4]));
    if (choices.length) {
      body.append(make("ol", { type: "A" }, ...choices.map((choice, i) => make("li", expected === String.fromCharCode(65 + i) ? { class: "right" } : {}, choice))));
    }
    body.append(make("p", { class: "expected" }, "expected: ", make("b", {}, expected), "  ", make("a", { href: link, class: "permalink" }, "link to this item")));
    const groups = new Map();
    for (const answer of answers) {
      const name = data.efforts[answer[1]] + (answer[2] > 0 ? `, repeat ${answer[2] + 1}` : "");
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(answer);
    }
    for (const [name, group] of groups) {
      const columns = columnsOf(group);
      const baseOf = (column) => texts[group.find((a) => a[0] === data.reference_of[column[0][0]])?.[5]];
      body.append(make("h4", {}, `effort ${name}`), make("div", { class: "side" }, ...columns.map((c) => articleOf(c, texts, baseOf(c)))));
    }
    details.append(body);
  }

  // --- the list ---------------------------------------------------------------------------------------------------

  let index = [], order = [], drawn = 0;
  function rowOf(number) {
    const [task, id, category, , question, verdicts] = index[number];
    const chips = make("span", { class: "chips" });
    for (const letter of verdicts) {
      if (letter === " ") { chips.append(make("b")); continue; }
      const flip = letter < "a", verdict = data.verdicts[letter.toLowerCase().charCodeAt(0) - 97];
      chips.append(make("i", { class: `v-${verdict}${flip ? " flip" : ""}`, title: verdict }));
    }
    const details = make("details", { class: "item" }, make("summary", {},
      make("span", { class: "id" }, data.tasks.length > 1 ? `${data.tasks[task]} ${id}` : id),
      make("span", { class: "category" }, data.categories[category]),
      make("span", { class: "question", dir: "auto" }, question), chips));
    details.addEventListener("toggle", async () => {
      if (!details.open || details.dataset.filled) return;
      details.dataset.filled = "yes";
      fill(details, number, await itemOf(number));
    });
    return details;
  }
  const sentinel = make("div", { class: "sentinel" });
  function drawMore() {
    if (drawn >= order.length) { sentinel.remove(); return; }
    const rows = order.slice(drawn, drawn + kRows).map(rowOf);
    drawn += rows.length;
    list.append(...rows, sentinel);
    if (drawn >= order.length) sentinel.remove();
  }
  new IntersectionObserver((entries) => { if (entries.some((e) => e.isIntersecting)) drawMore(); }, { rootMargin: "800px" }).observe(sentinel);

  // Search reads the index at once, and the transcripts as they are unpacked.
  let run = 0;
  async function apply() {
    const mine = ++run, words = search.value.toLowerCase();
    const plan = select.plan && select.plan.value !== "" ? Number(select.plan.value) : -1;
    const verdict = select.verdict.value === "" ? -1 : Number(select.verdict.value);
    const fitsIndex = (row) => (!select.task || select.task.value === "" || row[0] === Number(select.task.value)) &&
      (select.category.value === "" || row[2] === Number(select.category.value)) && (!flippedOnly.checked || row[3] > 0) &&
      (verdict < 0 || [...row[5].toLowerCase()].some((c) => c.charCodeAt(0) - 97 === verdict));
    const inIndex = (row) => (`${data.tasks[row[0]]} ${row[1]} ${data.categories[row[2]]} ${row[4]}`).toLowerCase().includes(words);
    let found = index.map((_, i) => i).filter((i) => fitsIndex(index[i]));
    if (words || plan >= 0) {
      form.querySelector("output").textContent = "searching …";
      const kept = [];
      for (const i of found) {
        const item = plan >= 0 || !inIndex(index[i]) ? await itemOf(i) : null;
        if (mine !== run) return;
        if (!item) { kept.push(i); continue; }
        const [expected, question, choices, texts, answers] = item;
        if (plan >= 0 && !answers.some((a) => a[0] === plan && (verdict < 0 || a[3] === verdict) && (!flippedOnly.checked || a[4]))) continue;
        if (words && !inIndex(index[i]) && ![expected, question, ...choices, ...texts.flat(), ...answers.map((a) => a[8])].some((t) => t.toLowerCase().includes(words))) continue;
        kept.push(i);
      }
      found = kept;
    }
    show(found);
  }
  function show(numbers) {
    order = numbers;
    drawn = 0;
    list.replaceChildren();
    if (!order.length) list.append(make("p", { class: "none empty" }, "No item is like this."));
    drawMore();
    form.querySelector("output").textContent = `${order.length.toLocaleString("en")} of ${index.length.toLocaleString("en")}`;
  }

  // #item=TASK/ID puts that item first and opens it.
  function followLink() {
    const match = /^#item=([^/]*)\/(.*)$/.exec(location.hash);
    if (!match) return;
    const [task, id] = match.slice(1).map(decodeURIComponent);
    const number = index.findIndex((row) => data.tasks[row[0]] === task && row[1] === id);
    if (number < 0) return;
    show([number, ...index.map((_, i) => i).filter((i) => i !== number)]);
    list.firstChild.open = true;
    document.getElementById("items").scrollIntoView();
  }

  const fillSelect = (one, names) => { if (one) names.forEach((name, i) => one.append(make("option", { value: i }, name))); };
  async function start() {
    index = await unpack(data.index);
    const present = new Set(index.flatMap((row) => [...row[5].toLowerCase()]).map((c) => c.charCodeAt(0) - 97));
    if (data.tasks.length < 2 && select.task) { select.task.remove(); delete select.task; }
    fillSelect(select.task, data.tasks);
    data.categories.map((name, i) => [name, i]).sort((a, b) => (a[0] < b[0] ? -1 : 1)).forEach(([name, i]) => select.category.append(make("option", { value: i }, name)));
    fillSelect(select.plan, data.plans);
    data.verdicts.forEach((name, i) => { if (present.has(i)) select.verdict.append(make("option", { value: i }, name)); });
    form.hidden = false;
    let wait = 0;
    form.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(apply, search.value ? 150 : 0); });
    form.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", followLink);
    show(index.map((_, i) => i));
    if (list.firstChild && list.firstChild.tagName === "DETAILS") list.firstChild.open = true;
    if (location.hash.startsWith("#item=")) {
      await parsed;  // until then the sections above may still change their height
      followLink();
    }
    performance.mark("items");  // for tests: the list answers from here on
    document.documentElement.dataset.items = "ready";
  }
  start();

  // "/" goes to the search, j and k to the next and the previous item; Enter opens it, as everywhere.
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "/") { event.preventDefault(); document.getElementById("items").scrollIntoView(); search.focus(); return; }
    if (event.key !== "j" && event.key !== "k") return;
    const rows = [...list.querySelectorAll("details.item > summary")], at = rows.indexOf(document.activeElement);
    const next = rows[event.key === "j" ? at + 1 : Math.max(0, at - 1)];
    if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  });
})();
