// The page: state, actions, what the keys do.
import { byId, element, get, post, say, stateText } from "/static/api.js";
import * as grid from "/static/grid.js";
import { KEYS, listed } from "/static/keys.js";
import * as picture from "/static/picture.js";

const state = { review: null, queue: [], place: -1, image: null, chosen: null, mode: "look", grid: false, latest: 0 };
const annotator = () => byId("annotator").value.trim();
const filters = () => ({
  status: byId("status").value, label: byId("label").value, sampled: byId("sampled").checked,
  min: byId("min-score").value || 0, max: byId("max-score").value || 1,
});
const object = () => state.image?.objects.find((one) => one.id === state.chosen);
const current = () => (state.grid ? grid.chosenCrop() : object());

// Nothing else is asked for while an answer is awaited, so that actions keep their order.
let busy = Promise.resolve();
function inTurn(work) {
  busy = busy.then(work).catch(async (error) => {
    say(error.message, true);
    if (error.conflict) await reload();
  });
  return busy;
}

async function start() {
  state.review = await get("review");
  state.latest = (await get("changes")).latest;
  byId("annotator").value = localStorage.getItem("annotator") || "";
  for (const order of state.review.orders) byId("order").append(new Option(order.replace("_", " "), order));
  byId("click").hidden = !state.review.masks;
  namesShown();
  await queued();
  if (!annotator()) byId("annotator").focus();
  setInterval(() => inTurn(followed), 3000);
}

function namesShown() {
  const { names } = state.review;
  const chosen = byId("label").value;
  byId("label").replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
  byId("label").value = chosen;
  byId("names").replaceChildren(...names.map((name) => new Option(name, name)));
  byId("hotkeys").replaceChildren(...names.slice(0, 9).map((name) => element("li", name)));
}

async function counted() {
  state.review = await get("review");
  const { done, images, open } = state.review;
  byId("progress").textContent = `${done} of ${images} images reviewed, ${open} objects to judge`;
  if (byId("names").children.length !== state.review.names.length) namesShown();
}

async function queued() {
  const { status, label } = filters();
  state.queue = await get("images", { order: byId("order").value || "worth", status, label });
  await counted();
  if (state.grid) return grid.loadGrid(filters());
  return opened(0);
}

async function opened(place) {
  state.place = Math.min(Math.max(place, 0), state.queue.length - 1);
  state.chosen = null;
  setMode("look");
  if (state.place < 0) {
    state.image = null;
    byId("title").textContent = "No image";
    byId("why").textContent = "";
    byId("objects").replaceChildren();
    return say("Nothing is left to review with these filters.");
  }
  shown(await get(`images/${state.queue[state.place].id}`));
  const first = state.image.objects.find((one) => one.status === "open") || state.image.objects[0];
  return choose(first?.id ?? null);
}

function shown(image) {
  state.image = image;
  const done = image.status === "done" ? `, finished by ${image.annotator}` : "";
  byId("title").textContent = `${state.place + 1} of ${state.queue.length}: ${image.file}${done}`;
  byId("why").textContent = image.why;
  byId("objects").replaceChildren(...image.objects.map(option));
  choose(object() ? state.chosen : null);
}

function option(one) {
  const { min, max } = filters();
  const item = element("li");
  item.id = `object-${one.id}`;
  item.hidden = (one.score ?? 0) < min || (one.score ?? 0) > max;
  item.setAttribute("role", "option");
  const { status, rest } = stateText(one);
  item.append(element("strong", one.label), " ", element("span", status, `state ${one.status}`), ` ${rest}`);
  item.addEventListener("click", () => choose(one.id));
  return item;
}

function choose(id) {
  state.chosen = id;
  for (const item of byId("objects").children) item.setAttribute("aria-selected", String(item.id === `object-${id}`));
  if (id === null) byId("objects").removeAttribute("aria-activedescendant");
  else {
    byId("objects").setAttribute("aria-activedescendant", `object-${id}`);
    byId(`object-${id}`)?.scrollIntoView({ block: "nearest" });
    byId("name").value = object().label;
  }
  if (state.image) picture.drawn(state.image, id);
}

function step(by) {
  if (state.grid) return grid.stepCrop(by);
  const rows = state.image?.objects.filter((one) => !byId(`object-${one.id}`).hidden) || [];
  if (!rows.length) return undefined;
  const place = rows.findIndex((one) => one.id === state.chosen);
  return choose(rows[Math.min(Math.max(place + by, 0), rows.length - 1)].id);
}

function setMode(mode) {
  state.mode = state.mode === mode ? "look" : mode;
  if (mode === "look") state.mode = "look";
  for (const [id, one] of [["draw", "draw"], ["move", "move"], ["click", "click"]]) {
    byId(id).setAttribute("aria-pressed", String(state.mode === one));
  }
  if (state.mode === "draw") picture.drafted(picture.middle());
  else picture.drafted(state.mode === "move" && object() ? object().box : null);
  if (state.mode === "draw" || state.mode === "move") {
    byId("frame").focus();
    say("Arrow keys move the box, with Alt its corner, with Shift ten pixels; Enter saves, Escape leaves it.");
  }
}

async function acted(body, done) {
  if (!annotator()) {
    byId("annotator").focus();
    throw new Error("Write your name first: corrections are kept with who made them.");
  }
  const image = await post("actions", { annotator: annotator(), ...body });
  if (state.grid) grid.judged(image, body.object);
  else shown(image);
  say(done);
  await counted();
  return image;
}

function decide(kind, done, more = {}) {
  const one = current();
  if (!one) return say("Choose an object first.", true);
  return inTurn(async () => {
    await acted({ kind, object: one.id, version: one.version, ...more }, `${one.label}: ${done}, saved.`);
    if (!state.grid && ["accept", "reject", "delete"].includes(kind)) step(1);
  });
}

function renamed(label) {
  if (!current()) {
    byId("name").value = label;
    return say(`The next object is ${label}.`);
  }
  return decide("rename", `now ${label}`, { label });
}

function placed() {
  const box = picture.draft();
  if (!box) return undefined;
  if (state.mode === "move") {
    setMode("look");
    return decide("move", "moved", { box });
  }
  const label = byId("name").value.trim() || state.review.names[0];
  setMode("look");
  return inTurn(async () => choose((await acted({ kind: "add", image: state.image.id, label, box }, `${label}: added, saved.`)).added));
}

function clicked(x, y) {
  const label = byId("name").value.trim() || state.review.names[0];
  return inTurn(async () => {
    say("The segmenter looks at it …");
    const { mask } = await post(`images/${state.image.id}/mask`, { x, y });
    choose((await acted({ kind: "add", image: state.image.id, label, mask }, `${label}: mask added, saved.`)).added);
  });
}

function finished() {
  if (!state.image || state.grid) return undefined;
  const kind = state.image.status === "done" ? "unfinish" : "finish";
  return inTurn(async () => {
    await acted({ kind, image: state.image.id, version: state.image.version }, kind === "finish" ? "Image finished, saved." : "Image opened again.");
    if (kind === "finish" && state.place + 1 < state.queue.length) await opened(state.place + 1);
  });
}

const undone = () => inTurn(async () => {
  const image = await post("undo", { annotator: annotator() || "nobody" });
  say("Undone.");
  await counted();
  if (state.grid) return grid.loadGrid(filters());
  const place = state.queue.findIndex((row) => row.id === image.id);
  if (place >= 0) state.place = place;
  return shown(image);
});

async function reload() {
  if (state.grid) await grid.loadGrid(filters());
  else if (state.image) shown(await get(`images/${state.image.id}`));
}

// What others did meanwhile is shown without being asked for.
async function followed() {
  const { latest, changes } = await get("changes", { since: state.latest });
  state.latest = latest;
  const others = changes.filter((one) => one.annotator !== annotator());
  if (!others.length) return;
  await counted();
  if (state.mode === "look" && (state.grid || others.some((one) => one.image === state.image?.id))) {
    await reload();
    say(`${others[0].annotator} changed something here; this is how it is now.`);
  }
}

function toGrid() {
  state.grid = !state.grid;
  byId("to-grid").setAttribute("aria-pressed", String(state.grid));
  byId("one").hidden = state.grid;
  byId("grid").hidden = !state.grid;
  grid.firstPage();
  return inTurn(queued).then(() => state.grid && byId("crops").focus());
}

function toKeys() {
  const hidden = !byId("keys").hidden;
  byId("keys").hidden = hidden;
  byId("to-keys").setAttribute("aria-expanded", String(!hidden));
}

const commands = {
  accept: () => decide("accept", "accepted"), reject: () => decide("reject", "rejected"),
  delete: () => decide("delete", "deleted"), reopen: () => decide("reopen", "open again"),
  rename: () => byId("name").focus(), step, finish: finished, undo: undone, grid: toGrid, keys: toKeys,
  draw: () => state.image && !state.grid && setMode("draw"), move: () => object() && !state.grid && setMode("move"),
  click: () => state.review.masks && !state.grid && setMode("click"),
  image: (by) => (state.grid ? undefined : inTurn(() => opened(state.place + by))),
  zoom: picture.zoomed, class: (place) => state.review.names[place] && renamed(state.review.names[place]),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), select");
  if (event.key === "Escape") return typing ? byId("frame").focus() : setMode("look");
  if (event.target.id === "name" && event.key === "Enter") {
    renamed(byId("name").value.trim());
    return byId("objects").focus();
  }
  if (typing || event.ctrlKey || event.metaKey) return undefined;
  if (picture.draft() && (picture.nudged(event) || event.key === "Enter")) {
    if (event.key === "Enter") placed();
    return event.preventDefault();
  }
  const known = !event.altKey && KEYS.find((one) => one.keys.includes(event.key));
  if (!known || (event.key.startsWith("Arrow") && event.target === byId("frame"))) return undefined;
  event.preventDefault();
  return commands[known.command](...(known.values?.[known.keys.indexOf(event.key)] ?? []));
});

for (const id of ["accept", "reject", "delete", "finish", "undo", "draw", "move", "click"]) byId(id).addEventListener("click", () => commands[id]());
byId("rename").addEventListener("click", () => renamed(byId("name").value.trim()));
byId("previous").addEventListener("click", () => commands.image(-1));
byId("next").addEventListener("click", () => commands.image(1));
byId("zoom-in").addEventListener("click", () => picture.zoomed(1.25));
byId("zoom-out").addEventListener("click", () => picture.zoomed(0.8));
byId("to-grid").addEventListener("click", toGrid);
byId("to-keys").addEventListener("click", toKeys);
byId("annotator").addEventListener("change", () => localStorage.setItem("annotator", annotator()));
byId("back").addEventListener("click", () => { grid.turned(-1); inTurn(() => grid.loadGrid(filters())); });
byId("on").addEventListener("click", () => { grid.turned(1); inTurn(() => grid.loadGrid(filters())); });
for (const id of ["order", "status", "label", "min-score", "max-score", "sampled"]) {
  byId(id).addEventListener("change", () => { grid.firstPage(); inTurn(queued); });
}
picture.listens({ mode: () => state.mode, choose, placed, clicked });
listed(byId("keys"));
inTurn(start);
