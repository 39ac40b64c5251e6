// What the page asks the server. Every answer that is an error becomes an Error with the server's line.

async function answered(reply) {
  const body = await reply.json().catch(() => ({ error: `the server answered ${reply.status}` }));
  if (!reply.ok) {
    const error = new Error(body.error || `the server answered ${reply.status}`);
    error.conflict = reply.status === 409;
    throw error;
  }
  return body;
}

function failed() {
  throw new Error("the server does not answer; what was saved is safe, try again");
}

export function get(path, values = {}) {
  const query = new URLSearchParams(values).toString();
  return fetch(`/api/${path}${query ? `?${query}` : ""}`).catch(failed).then(answered);
}

export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return fetch(`/api/${path}`, { method: "POST", headers, body: JSON.stringify(body) }).catch(failed).then(answered);
}

export const byId = (id) => document.getElementById(id);

// An element with text; names of classes and files are only ever text.
export function element(kind, text = "", classes = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

export function say(text, wrong = false) {
  byId("message").textContent = text;
  byId("message").className = wrong ? "wrong" : "";
}

export function stateText(object) {
  const score = object.score === null ? "" : `, score ${object.score.toFixed(2)}`;
  const by = object.annotator ? ` by ${object.annotator}` : "";
  const what = object.change || object.status;
  const was = object.was === object.label ? "" : `, was ${object.was}`;
  return { status: `${what}${by}`, rest: `from ${object.origin === "drawn" ? "a person" : object.origin}${score}${was}` };
}
