// What helps a reader of the page: definitions at the pointer and the keyboard's focus, links to sections, tables as Markdown, help.
(() => {
  "use strict";
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // The columns of a table as a grid: for each cell the head cells above it, whatever they span.
  function headsOf(table) {
    const heads = [];
    [...(table.tHead?.rows ?? [])].forEach((row, r) => {
      let column = 0;
      for (const cell of row.cells) {
        while (heads[r]?.[column]) ++column;
        for (let y = r; y < r + cell.rowSpan; ++y) for (let x = column; x < column + cell.colSpan; ++x) (heads[y] ??= [])[x] = cell;
        column += cell.colSpan;
      }
    });
    return heads;
  }
  const headText = (heads, column) => [...new Set(heads.map((row) => row[column]).filter(Boolean))].map((cell) => cell.dataset.text ?? cell.textContent.trim()).join(" ");

  // --- definitions ------------------------------------------------------------------------------------------------

  // Native tooltips come late and not by keyboard: the title of every head becomes our own.
  for (const head of document.querySelectorAll("th[title]")) {
    head.dataset.definition = head.title;
    head.removeAttribute("title");
    head.tabIndex = 0;
  }
  const tip = make("div", { id: "tip", role: "tooltip", hidden: "" });
  document.body.append(tip);
  function definitionAt(element) {
    const own = element.closest("[data-definition]");
    if (own) return [own.dataset.text ?? own.textContent.trim(), own.dataset.definition];
    const cell = element.closest("tbody td");
    if (!cell) return null;
    const heads = headsOf(cell.closest("table"));
    const above = heads.map((row) => row[cell.cellIndex]).filter((head) => head?.dataset.definition);
    const method = element.closest("[title]")?.title;
    if (!above.length) return null;
    const plan = cell.closest("tr").querySelector("th")?.childNodes[0]?.textContent ?? "";
    return [`${plan ? `${plan}: ` : ""}${headText(heads, cell.cellIndex)}`, above[0].dataset.definition + (method ? ` Interval: ${method}.` : "")];
  }
  let wait = 0;
  const hide = () => { clearTimeout(wait); tip.hidden = true; };
  function show(element) {
    const found = definitionAt(element);
    if (!found) return hide();
    tip.replaceChildren(make("b", {}, found[0]), found[1]);
    tip.hidden = false;
    const at = (element.closest("td, th") ?? element).getBoundingClientRect(), box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.width - 8))}px`;
    tip.style.top = `${at.bottom + box.height + 10 < innerHeight ? at.bottom + 6 : Math.max(8, at.top - box.height - 6)}px`;
  }
  document.addEventListener("pointerover", (event) => { hide(); if (event.target.closest?.("th, td")) wait = setTimeout(() => show(event.target), 350); });
  document.addEventListener("focusin", (event) => { if (event.target.matches?.("[data-definition]")) show(event.target); else hide(); });
  document.addEventListener("focusout", hide);
  addEventListener("scroll", hide, { passive: true });

  // --- links and copies -------------------------------------------------------------------------------------------

  const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  for (const heading of document.querySelectorAll("section > h2, section > h3")) {
    const section = heading.parentElement.id;
    const id = heading.tagName === "H2" ? section : `${section}-${slug(heading.textContent)}`;
    if (heading.tagName === "H3" && !document.getElementById(id)) heading.id = id;
    heading.append(make("a", { class: "anchor", href: `#${id}`, "aria-label": `link to ${heading.textContent}` }, "#"));
  }
  // The ids of smaller headings exist only now.
  if (location.hash && !location.hash.startsWith("#item=")) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();

  const say = (message) => {
    const note = make("div", { class: "toast", role: "status" }, message);
    document.body.append(note);
    setTimeout(() => note.remove(), 1800);
  };
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = make("textarea", { readonly: "" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say("Copied as Markdown");
  }
  // What a cell says on one line, as a Markdown table takes it.
  function cellText(cell) {
    const lines = [];
    for (const node of cell.childNodes) {
      const text = (node.textContent ?? "").replace(/\s+/g, " ").trim();
      if (text) lines.push(text);
    }
    return lines.join(" ").replace(/([\\|<>`*_])/g, "\\$1");
  }
  function markdownOf(table) {
    const heads = headsOf(table), columns = Math.max(0, ...[...table.rows].map((row) => row.cells.length), ...heads.map((row) => row.length));
    const lines = [];
    if (heads.length) lines.push([...Array(columns).keys()].map((c) => headText(heads, c).replace(/\|/g, "\\|")));
    else lines.push(Array(columns).fill(""));
    lines.push([...Array(columns).keys()].map((c) => (c === 0 ? "---" : "---:")));
    for (const row of table.tBodies[0].rows) lines.push([...row.cells].map(cellText));
    return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n") + "\n";
  }
  for (const frame of document.querySelectorAll(".scroll")) {
    const table = frame.querySelector("table");
    if (!table) continue;
    const button = make("button", { type: "button", class: "copy", title: "copy this table as Markdown" }, "Markdown");
    button.addEventListener("click", () => copy(markdownOf(table)));
    const outer = make("div", { class: "frame" });
    frame.replaceWith(outer);
    outer.append(frame, button);
  }
  window.moebenchMarkdown = markdownOf;  // for tests

  // --- light and dark ---------------------------------------------------------------------------------------------

  const root = document.documentElement, theme = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const changed = () => dispatchEvent(new Event("themechange"));
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; changed(); });
  system.addEventListener("change", changed);

  // --- keys -------------------------------------------------------------------------------------------------------

  const help = make("dialog", { id: "keys" }, make("h2", {}, "Keys"), make("dl", {},
    ...[...(document.getElementById("filter") ? [["/", "search the answers"], ["j  k", "next, previous answer"], ["Enter", "open or close it"]] : []), ["g  G", "top, bottom of the page"], ["d", "light or dark"], ["?", "this help"]]
      .flatMap(([key, text]) => [make("dt", {}, ...key.split("  ").map((k) => make("kbd", {}, k))), make("dd", {}, text)])),
    make("form", { method: "dialog" }, make("button", {}, "Close")));
  document.body.append(help);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "?") help.showModal();
    if (event.key === "d") theme.click();
    if (event.key === "g") scrollTo({ top: 0 });
    if (event.key === "G") scrollTo({ top: document.body.scrollHeight });
  });
  const helpButton = document.getElementById("help");
  helpButton.hidden = false;
  helpButton.addEventListener("click", () => help.showModal());

  // On paper nothing can be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("section > details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
})();
