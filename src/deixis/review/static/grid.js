// The grid of crops: many objects at a glance, judged by keys.
import { byId, element, get, stateText } from "/static/api.js";

const grid = { rows: [], offset: 0, total: 0, place: 0, per: 60 };

export const chosenCrop = () => grid.rows[grid.place];

export async function loadGrid(filters) {
  const status = filters.status === "done" ? "accepted" : filters.status;
  const wanted = { status, label: filters.label, min_score: filters.min, max_score: filters.max, sampled: filters.sampled };
  const found = await get("objects", { ...wanted, offset: grid.offset });
  grid.rows = found.objects;
  grid.total = found.total;
  grid.place = Math.min(grid.place, Math.max(grid.rows.length - 1, 0));
  shown();
}

function shown() {
  const last = grid.offset + grid.rows.length;
  byId("total").textContent = grid.total ? `Objects ${grid.offset + 1} to ${last} of ${grid.total}` : "No objects";
  byId("back").disabled = grid.offset === 0;
  byId("on").disabled = last >= grid.total;
  byId("crops").replaceChildren(...grid.rows.map((row, place) => crop(row, place)));
  marked();
}

function crop(row, place) {
  const item = element("li");
  item.id = `crop-${row.id}`;
  item.setAttribute("role", "option");
  const picture = element("img");
  picture.src = `/api/crops/${row.id}?v=${row.version}`;
  picture.alt = "";
  picture.loading = "lazy";
  const { status, rest } = stateText(row);
  item.append(picture, element("strong", row.label), " ", element("span", status, `state ${row.status}`), ` ${rest}`);
  item.addEventListener("click", () => chooseCrop(place));
  return item;
}

function marked() {
  [...byId("crops").children].forEach((item, place) => item.setAttribute("aria-selected", String(place === grid.place)));
  const row = chosenCrop();
  if (row) {
    byId("crops").setAttribute("aria-activedescendant", `crop-${row.id}`);
    byId(`crop-${row.id}`).scrollIntoView({ block: "nearest" });
  } else byId("crops").removeAttribute("aria-activedescendant");
}

export function chooseCrop(place) {
  grid.place = Math.min(Math.max(place, 0), Math.max(grid.rows.length - 1, 0));
  marked();
}

export const stepCrop = (by) => chooseCrop(grid.place + by);

export function turned(by) {
  grid.offset = Math.max(grid.offset + by * grid.per, 0);
  grid.place = 0;
}

export const firstPage = () => turned(-Infinity);

// What an action answered: the crop as it is now, and the next one chosen.
export function judged(image, id) {
  const place = grid.rows.findIndex((row) => row.id === id);
  const now = image.objects.find((object) => object.id === id);
  if (place < 0) return;
  if (now) {
    grid.rows[place] = now;
    byId("crops").children[place].replaceWith(crop(now, place));
  } else {
    grid.rows.splice(place, 1);
    grid.total -= 1;
    shown();
    return;
  }
  stepCrop(1);
}
