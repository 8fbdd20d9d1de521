"use strict";
// The page of the gateway. It talks to the gateway that it came from and to nobody else; the key is
// kept in a variable, so that it is gone with the window.

const $ = (id) => document.getElementById(id);
const MOST_ENTRIES = 40; // pictures kept in memory

let key = "";
let shown = null; // the picture and its answer on the screen
let asking = null; // the AbortController of the question under way
let afterKey = null; // what waits for a key
let entries = [];

// Errors of ours have words for people; anything else is a fault of this script.
class Refused extends Error {
  constructor(message, status = 0, id = "") {
    super(message);
    this.status = status;
    this.id = id;
  }
}

// The gateway.

async function call(path, init = {}) {
  const headers = { Authorization: `Bearer ${key}`, Accept: "application/json" };
  let response;
  try {
    response = await fetch(path, { ...init, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The gateway does not answer. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const told = await response.json().catch(() => ({}));
  const error = told.error || { message: `The gateway answered with status ${response.status}.` };
  const wait = response.headers.get("Retry-After");
  const again = wait ? ` Asking again in ${wait} seconds may help.` : "";
  return new Refused(error.message + again, response.status, error.request_id);
}

async function ask(entry, signal) {
  const body = new FormData();
  body.append("image", entry.file, entry.file.name);
  body.append("prompt", entry.prompt);
  body.append("detail", entry.detail);
  if (entry.tokens) body.append("max_tokens", entry.tokens);
  body.append("stream", "true");
  const response = await call("./", { method: "POST", body, signal });
  for await (const told of events(response.body)) {
    if (told.error) throw new Refused(told.error.message, 0, told.error.request_id);
    if ("text" in told) entry.text += told.text;
    else entry.answer = told;
    if (entry === shown) showAnswer();
  }
  if (!entry.answer) throw new Refused("The answer broke off before its end.");
  entry.text = entry.answer.description;
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused("The connection broke before the end of the answer.");
    }
    if (piece.done) return;
    const whole = (kept + piece.value).split("\n\n");
    kept = whole.pop();
    for (const event of whole) yield JSON.parse(event.slice("data: ".length));
  }
}

// The key.

async function enter(shownKey) {
  key = shownKey;
  try {
    await call("metrics"); // what needs the key and wakes no model
  } catch (error) {
    forget();
    throw error;
  }
  $("enter-key").textContent = "Change the key";
  $("enter-key").classList.remove("primary");
  nameModel(); // not waited for: a model that starts may take minutes
}

async function nameModel() {
  $("model").className = "model";
  $("model").textContent = "the model is starting …";
  try {
    const models = await (await call("v1/models")).json();
    $("model").textContent = models.data[0].id;
    $("model").classList.add("ready");
  } catch {
    $("model").textContent = "the model does not answer yet";
  }
}

function forget() {
  key = "";
  $("model").textContent = "";
  $("enter-key").textContent = "Enter the key";
  $("enter-key").classList.add("primary");
}

function wantKey(problem, then) {
  afterKey = then;
  $("key-problem").textContent = problem;
  $("key-problem").hidden = !problem;
  $("key-field").value = "";
  if (!$("key").open) $("key").showModal();
  $("key-field").focus();
}

async function takeKey(event) {
  event.preventDefault();
  try {
    await enter($("key-field").value.trim());
  } catch (error) {
    const unknown = "The gateway does not know that key.";
    wantKey(error.status === 401 ? unknown : error.message, afterKey);
    return;
  }
  const then = afterKey;
  $("key").close();
  if (then) then();
}

async function useLink() {
  const once = new URLSearchParams(location.hash.slice(1)).get("once");
  if (!once) return;
  history.replaceState(null, "", location.pathname); // a reload would show a link that is used up
  key = once;
  try {
    const session = await (await call("page/session", { method: "POST" })).json();
    await enter(session.token);
  } catch (error) {
    forget();
    const used = "The link has been used, or is of another run of the gateway.";
    wantKey(error.status === 401 ? used : error.message, null);
  }
}

// The picture.

function take(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) {
    showProblem(new Refused(`${file.name} is not a picture.`));
    return;
  }
  stop();
  show({ file, url: URL.createObjectURL(file), text: "", answer: null, problem: null, note: "" });
}

function show(entry) {
  shown = entry;
  $("empty").hidden = true;
  $("picture").hidden = false;
  $("drop").classList.add("filled");
  $("image").hidden = false;
  $("no-preview").hidden = true;
  $("image").src = entry.url;
  $("name").textContent = `${entry.file.name}, ${size(entry.file.size)}`;
  showAnswer();
  showCode();
  for (const item of $("entries").children) item.firstChild.setAttribute("aria-current", item.entry === entry);
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function pasted(event) {
  const file = [...event.clipboardData.files][0];
  if (!file || $("key").open) return;
  event.preventDefault();
  take(file);
}

function dropped(event) {
  event.preventDefault();
  $("drop").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) take(file);
  else showProblem(new Refused("Save the picture first: this page loads nothing from elsewhere."));
}

// The question.

async function submit(event) {
  if (event) event.preventDefault();
  if (asking) return;
  if (!shown) return showProblem(new Refused("Choose a picture first."));
  if (!key) return wantKey("", submit);
  const { file, url } = shown;
  const entry = { file, url, text: "", answer: null, problem: null, note: "", ...question() };
  const ticking = waiting(entry);
  const mine = (asking = new AbortController());
  show(entry);
  busy(true);
  try {
    await ask(entry, mine.signal);
  } catch (error) {
    if (error.name === "AbortError") entry.note = "Stopped.";
    else if (error instanceof Refused) entry.problem = error;
    else throw error;
  } finally {
    clearInterval(ticking);
    if (asking === mine) stop();
    if (entry === shown) showAnswer();
  }
  if (entry.problem && entry.problem.status === 401) {
    forget();
    wantKey("The gateway does not know that key.", submit);
  } else if (entry.text) remember(entry);
}

function question() {
  const prompt = $("prompt").value.trim() || $("preset").options[0].value;
  const preset = presetOf(prompt);
  return { prompt, detail: chosen("detail"), tokens: preset ? preset.dataset.tokens : undefined };
}

function presetOf(prompt) {
  return [...$("preset").options].find((one) => one.value && one.value === prompt);
}

function chosen(name) {
  return document.querySelector(`input[name=${name}]:checked`).value;
}

function waiting(entry) {
  const begun = Date.now();
  const tell = () => {
    const seconds = Math.round((Date.now() - begun) / 1000);
    $("wait").textContent = entry.text || seconds < 2 ? "" : `Waiting for the first word, ${seconds} s`;
  };
  return setInterval(tell, 1000);
}

function busy(is) {
  $("ask").disabled = is;
  $("stop").hidden = !is;
  $("wait").textContent = "";
  $("answer").classList.toggle("writing", is);
  $("answer").setAttribute("aria-busy", is);
}

function stop() {
  if (!asking) return;
  asking.abort();
  asking = null;
  busy(false);
}

// The answer.

function showAnswer() {
  const { text, answer, problem, note } = shown;
  $("answer").hidden = !(text || note || asking);
  $("text").textContent = text;
  $("copy-text").hidden = !text || asking !== null;
  list($("warnings"), [...(note ? [note] : []), ...(answer ? answer.warnings : [])]);
  showProblem(problem);
  showFacts(answer);
  showTiles(answer);
}

function list(into, texts) {
  into.replaceChildren(...texts.map((text) => element("li", text)));
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function showProblem(problem) {
  $("problem").hidden = !problem;
  if (!problem) return;
  $("problem").replaceChildren(problem.message);
  if (problem.id) $("problem").append(element("small", `request ${problem.id}`));
}

function showFacts(answer) {
  $("facts").replaceChildren();
  if (!answer) return;
  const { usage, timings, seen, cost_usd: cost } = answer;
  const first = timings.first_token === null ? "" : `, first word after ${timings.first_token.toFixed(1)} s`;
  const proof = seen === "confirmed" ? "yes, the token count proves it" : "cannot be proved here";
  fact("Tokens", `${count(usage.prompt_tokens)} read, ${count(usage.completion_tokens)} written`);
  fact("Time", `${timings.total.toFixed(1)} s${first}`);
  if (cost) fact("Cost on a busy machine", `$${cost[0].toPrecision(2)} to $${cost[1].toPrecision(2)}`);
  fact("Picture seen", proof, seen === "confirmed" ? "good" : "");
}

function fact(name, value, className = "") {
  const pair = document.createElement("div");
  pair.append(element("dt", name), element("dd", value, className));
  $("facts").append(pair);
}

function count(number) {
  return number.toLocaleString("en");
}

function showTiles(answer) {
  const info = answer && answer.images[0];
  $("show-tiles").hidden = !info;
  $("saw").textContent = info ? saw(info) : "";
  $("tiles").toggleAttribute("hidden", !info || !$("tiles-on").checked);
  $("tiles").replaceChildren();
  if (!info) return;
  const [columns, rows] = info.grid;
  const lines = ["M0 0H" + columns + "V" + rows + "H0Z"];
  for (let x = 1; x < columns; x++) lines.push(`M${x} 0V${rows}`);
  for (let y = 1; y < rows; y++) lines.push(`M0 ${y}H${columns}`);
  $("tiles").setAttribute("viewBox", `0 0 ${columns} ${rows}`);
  for (const name of ["under", "line"]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    path.setAttribute("d", lines.join(""));
    $("tiles").append(path);
  }
}

function saw(info) {
  const [columns, rows] = info.grid;
  const parts = columns * rows;
  const tiles = info.tiles === 1 ? "The model saw it as one tile" : `The model saw ${columns} × ${rows} tiles`;
  const whole = info.tiles > parts ? " and the whole once more, small" : "";
  return `${tiles}${whole}: ${count(info.tokens)} tokens. It was sent as ${info.sent_width} × ${info.sent_height} pixels, ${size(info.bytes_sent)}.`;
}

// The same call elsewhere.

function showCode() {
  const { prompt, detail, tokens } = question();
  const name = shown ? shown.file.name : "photo.jpg";
  const base = new URL(".", location.href).href;
  const python = `import internvl_modal as ivl

with ivl.Client(base_url=${quoted(`${base}v1`)}, api_key=KEY) as client:
    print(client.describe(${quoted(name)}, ${quoted(prompt)}, detail=${quoted(detail)}${tokens ? `, max_tokens=${tokens}` : ""}))`;
  const curl = `curl -H "Authorization: Bearer $KEY" \\
  -F ${shell(`image=@"${name.replace(/["\\]/g, "\\$&")}"`)} \\
  --form-string ${shell(`prompt=${prompt}`)} \\
  -F detail=${detail}${tokens ? ` -F max_tokens=${tokens}` : ""} ${base}`;
  $("code").textContent = chosen("language") === "python" ? python : curl;
}

const quoted = (text) => JSON.stringify(text); // a Python string as well
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

async function copy(button, text) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and press Ctrl+C";
  }
  setTimeout(() => (button.textContent = said), 2000);
}

// What was asked before.

function remember(entry) {
  entries = [entry, ...entries].slice(0, MOST_ENTRIES);
  const items = entries.map((one) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    image.src = one.url;
    image.alt = "";
    button.type = "button";
    button.append(image, element("span", one.text));
    button.setAttribute("aria-current", one === shown);
    button.addEventListener("click", () => recall(one));
    const item = document.createElement("li");
    item.entry = one;
    item.append(button);
    return item;
  });
  $("entries").replaceChildren(...items);
  $("history").hidden = false;
}

function look(detail) {
  document.querySelector(`input[name=detail][value=${detail}]`).checked = true;
}

function recall(entry) {
  stop();
  $("prompt").value = entry.prompt;
  $("preset").value = presetOf(entry.prompt) ? entry.prompt : "";
  look(entry.detail);
  show(entry);
}

// Everything that a person can do.

function choosePreset() {
  $("prompt").value = $("preset").value;
  const preset = presetOf($("preset").value);
  look(preset ? preset.dataset.detail || "medium" : chosen("detail"));
  if (!$("preset").value) $("prompt").focus();
  showCode();
}

function pressed(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("key").open) submit(event);
  if (event.key === "Escape" && !$("key").open) stop();
}

const on = (target, name, does) => target.addEventListener(name, does);
on($("file"), "change", () => take($("file").files[0]));
on($("image"), "error", () => {
  $("image").hidden = true;
  $("no-preview").hidden = false;
});
on(window, "paste", pasted);
on(window, "drop", dropped);
on(window, "dragover", (event) => event.preventDefault());
on($("drop"), "dragover", () => $("drop").classList.add("over"));
on($("drop"), "dragleave", () => $("drop").classList.remove("over"));
on($("form"), "submit", submit);
on($("form"), "input", showCode);
on($("preset"), "change", choosePreset);
on($("stop"), "click", stop);
on($("tiles-on"), "change", showAnswer);
on($("call"), "change", showCode);
on($("copy-text"), "click", () => copy($("copy-text"), shown.text));
on($("copy-code"), "click", () => copy($("copy-code"), $("code").textContent));
on($("enter-key"), "click", () => wantKey("", null));
on($("key-cancel"), "click", () => $("key").close());
on($("key"), "close", () => ($("key-field").value = ""));
on($("key-form"), "submit", takeKey);
on(window, "keydown", pressed);
on(window, "hashchange", useLink);
choosePreset();
useLink();
