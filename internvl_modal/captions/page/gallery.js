"use strict";
// Every text of a caption file is set as text, never as HTML: captions are written by models, keys
// by strangers.
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const rows = page.rows;
  const at = (id) => document.getElementById(id);
  const cards = at("cards"), search = at("search"), sort = at("sort"), view = at("view");
  const STEP = 60;
  let state = "all", flag = "", found = [], drawn = 0, current = 0, opened = 0;

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const number = (value) => value.toLocaleString("en");
  const isBad = (row) => row.answers.some((each) => each.error);
  const flagsOf = (row) => [...new Set(row.answers.flatMap((each) => each.flags))];
  const textOf = (row) => row.answers.map((each) => each.text + " " + each.error).join(" ");
  const length = (row) => row.answers.reduce((sum, each) => sum + each.text.length, 0);
  rows.forEach((row, index) => {
    row.index = index;
    row.flags = flagsOf(row);
    row.bad = isBad(row);
    row.plain = (row.key + " " + textOf(row)).toLowerCase();
  });

  const orders = {
    order: (a, b) => a.index - b.index,
    flags: (a, b) => b.bad - a.bad || b.flags.length - a.flags.length || a.index - b.index,
    long: (a, b) => length(b) - length(a) || a.index - b.index,
    short: (a, b) => length(a) - length(b) || a.index - b.index,
    key: (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0),
  };
  const states = {
    all: ["All", () => true],
    good: ["Clean", (row) => !row.bad && !row.flags.length],
    flagged: ["Flagged", (row) => row.flags.length > 0],
    failed: ["Failed", (row) => row.bad],
  };

  const words = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);

  // The words that were searched for, marked: pieces of text and <mark> elements.
  function marked(element, text, wanted) {
    const lower = text.toLowerCase();
    // Some letters change their length in lower case, and places would not fit any more.
    if (!wanted.length || lower.length !== text.length) {
      element.textContent = text;
      return element;
    }
    let from = 0;
    while (from < text.length) {
      let next = -1, size = 0;
      for (const word of wanted) {
        const place = lower.indexOf(word, from);
        if (place >= 0 && (next < 0 || place < next)) { next = place; size = word.length; }
      }
      if (next < 0) break;
      element.append(text.slice(from, next), make("mark", "", text.slice(next, next + size)));
      from = next + size;
    }
    element.append(text.slice(from));
    return element;
  }

  // Of schemes only those that pictures have; what has none lies beside the page.
  const loadable = (url) => url !== "" &&
    (/^(https?:|file:|data:image\/)/i.test(url) || !/^\s*[a-z][a-z0-9+.-]*:/i.test(url));

  function picture(row, lazy) {
    const box = make("div", "picture");
    const blank = (why) => box.replaceChildren(make("span", "", why));
    if (!loadable(row.source)) { blank("no picture here"); return box; }
    const image = make("img");
    image.alt = "";
    image.loading = lazy ? "lazy" : "eager";
    image.decoding = "async";
    image.referrerPolicy = "no-referrer";
    image.addEventListener("error", () => blank("the picture cannot be shown"));
    image.src = row.source;
    box.append(image);
    return box;
  }

  function marks(answer) {
    const list = make("ul", "marks");
    answer.flags.forEach((each) => list.append(make("li", "", each)));
    if (answer.error) list.append(make("li", "bad", "failed"));
    return list;
  }

  function answers(row, wanted) {
    const box = make("div", row.answers.length > 1 ? "answers many" : "answers");
    for (const each of row.answers) {
      const one = make("div");
      if (each.name) one.append(make("p", "name", each.name));
      if (each.text) one.append(marked(make("p", "text"), each.text, wanted));
      if (each.error) one.append(marked(make("p", "text failed"), each.error, wanted));
      if (each.flags.length || each.error) one.append(marks(each));
      box.append(one);
    }
    return box;
  }

  function card(row, place) {
    const wanted = words();
    const article = make("article", "card");
    article.tabIndex = -1;
    article.dataset.place = place;
    article.setAttribute("aria-label", row.key);
    const inner = make("div", "words");
    inner.append(answers(row, wanted), marked(make("p", "key"), row.key, wanted));
    article.append(picture(row, true), inner);
    article.addEventListener("click", () => { focus(place, false); open(row); });
    article.addEventListener("focus", () => { current = place; });
    return article;
  }

  function draw(until) {
    const part = document.createDocumentFragment();
    for (; drawn < Math.min(until, found.length); drawn += 1) part.append(card(found[drawn], drawn));
    cards.append(part);
  }

  function counts() {
    const shown = found.length === rows.length ? "" : `${number(found.length)} of `;
    const flagged = rows.filter((row) => row.flags.length).length;
    const failed = rows.filter((row) => row.bad).length;
    const parts = [`${shown}${number(rows.length)} pictures`];
    if (flagged) parts.push(`${number(flagged)} flagged`);
    if (failed) parts.push(`${number(failed)} failed`);
    at("count").textContent = parts.concat(page.facts).join(" · ");
  }

  function apply() {
    const wanted = words(), test = states[state][1];
    found = rows.filter((row) => test(row) && (!flag || row.flags.includes(flag)) &&
      wanted.every((word) => row.plain.includes(word))).sort(orders[sort.value]);
    cards.replaceChildren();
    drawn = 0;
    draw(STEP);
    current = 0;
    if (cards.firstChild) cards.firstChild.tabIndex = 0;
    at("none").hidden = found.length > 0;
    counts();
    for (const each of document.querySelectorAll(".choices button"))
      each.setAttribute("aria-pressed", String(each.dataset.state === state || each.dataset.flag === flag));
  }

  function focus(place, scroll = true) {
    if (!found.length) return;
    const last = cards.children[current];
    if (last) last.tabIndex = -1;
    current = Math.max(0, Math.min(place, found.length - 1));
    if (current >= drawn) draw(current + STEP);
    const next = cards.children[current];
    next.tabIndex = 0;
    next.focus({ preventScroll: true });
    if (scroll) next.scrollIntoView({ block: "nearest" });
  }

  function details(row) {
    const list = make("dl");
    const add = (name, value) => {
      if (value === "" || value === null || value === undefined) return;
      list.append(make("dt", "", name), make("dd", "", String(value)));
    };
    add("key", row.key);
    for (const each of row.answers) {
      const of = each.name ? ` (${each.name})` : "";
      for (const [name, value] of Object.entries(each.facts)) add(name + of, value);
    }
    return list;
  }

  function open(row) {
    opened = current;
    at("shown").replaceChildren(picture(row, false), answers(row, words()), details(row));
    if (!view.open) view.showModal();
    view.scrollTop = 0;
  }

  function columns() {
    const first = cards.children[0];
    if (!first) return 1;
    return [...cards.children].findIndex((each) => each.offsetTop !== first.offsetTop) || 1;
  }

  const across = () => { const n = columns(); return n < 0 ? cards.children.length : n; };
  const moves = {
    ArrowRight: () => 1, ArrowLeft: () => -1, j: () => 1, k: () => -1,
    ArrowDown: across, ArrowUp: () => -across(),
    Home: () => -current, End: () => found.length - 1 - current,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape" && event.target === search) {
      search.value = ""; apply(); search.blur(); return;
    }
    if (typing || at("keys").open) return;
    if (view.open) {
      const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
      if (step) { event.preventDefault(); focus(current + step, false); open(found[current]); }
      return;
    }
    const onButton = event.target.matches("button");
    if (event.key === "/") search.focus();
    else if (event.key === "?") at("keys").showModal();
    else if (event.key === "a") { state = "all"; flag = ""; apply(); }
    else if (event.key === "f") { state = state === "flagged" ? "all" : "flagged"; apply(); }
    else if (event.key === "x") { state = state === "failed" ? "all" : "failed"; apply(); }
    else if (event.key === "Enter" && !onButton && found.length) { focus(current); open(found[current]); }
    else if (moves[event.key]) {
      const inside = document.activeElement && document.activeElement.closest(".card");
      const far = event.key === "Home" || event.key === "End";
      focus(inside || far ? current + moves[event.key]() : current);
    } else return;
    event.preventDefault();
  });

  function choice(box, label, count, set, data) {
    const button = make("button", "", label);
    button.type = "button";
    button.append(make("b", "", number(count)));
    Object.assign(button.dataset, data);
    button.addEventListener("click", () => { set(); apply(); });
    box.append(button);
  }

  for (const [name, [label, test]] of Object.entries(states)) {
    const count = rows.filter(test).length;
    if (name === "all" || count) choice(at("states"), label, count, () => { state = name; }, { state: name });
  }
  const tally = new Map();
  rows.forEach((row) => row.flags.forEach((each) => tally.set(each, (tally.get(each) || 0) + 1)));
  for (const [name, count] of [...tally].sort((a, b) => b[1] - a[1]))
    choice(at("flags"), name, count, () => { flag = flag === name ? "" : name; }, { flag: name });

  for (const table of page.tables) {
    const element = make("table");
    element.append(make("caption", "", table.title));
    table.rows.forEach((cells, index) => {
      const line = make("tr");
      cells.forEach((cell, column) => {
        const head = cell && (!index || !column);
        const element = make(head ? "th" : "td", "", cell);
        if (head) element.scope = index ? "row" : "col";
        line.append(element);
      });
      element.append(line);
    });
    at("summary").append(element);
    at("summary").hidden = false;
  }

  if (rows.some((row) => row.answers.length > 1)) cards.classList.add("wide");
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  sort.addEventListener("change", apply);
  at("help").addEventListener("click", () => at("keys").showModal());
  at("close").addEventListener("click", () => view.close());
  for (const dialog of [view, at("keys")])
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  // The browser has just gone back to the card that was opened first.
  view.addEventListener("close", () => focus(opened));
  new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) draw(drawn + STEP); },
    { rootMargin: "1200px" }).observe(at("more"));
  apply();
})();
