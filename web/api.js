// Requests to the server, and the operator's token.

/**
 * Post JSON; what the server refuses is thrown as an Error with its sentence.
 * @param {string} path
 * @param {object} body
 * @returns {Promise<any>}
 */
export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/**
 * Get JSON; refusals as in `post`.
 * @param {string} path
 * @returns {Promise<any>}
 */
export function get(path) {
  return ask(path, {});
}

/**
 * @param {string} path
 * @param {RequestInit} options
 */
async function ask(path, options) {
  const response = await fetch(path, options).catch(() => {
    throw new Error("The server does not answer.");
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.sentence);
  return answer;
}

/** Exchange the token in the address for a cookie, and forget it. */
export async function enter() {
  const [role, token] = location.hash.slice(1).split("=", 2);
  if (token === undefined || (role !== "operator" && role !== "viewer")) return;
  history.replaceState(null, "", location.pathname + location.search);
  await post(`api/${role}`, { token });
}

/** Of the server's WebSocket. */
export function socketAddress() {
  const address = new URL("ws", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.hash = "";
  return address.href;
}
