// The caller's key: kept until the tab is closed, and sent with every call.

import { say } from "./words.js";

const at = (id) => document.getElementById(id);
let taking = null; // the promise of a key that is being asked for

// Without a key, a service that has no keys still answers.
export function authorization() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

export function hasKey() {
  return sessionStorage.getItem("key") !== null;
}

// fetch with the key; while the service wants another one, the caller is asked for it.
export async function ask(url, { headers = {}, ...options } = {}) {
  for (;;) {
    const answer = await fetch(url, { headers: { ...headers, ...authorization() }, ...options });
    if (answer.status !== 401 || !(await takeKey())) return answer;
  }
}

// Asks for a key, once for all who want it; resolves to whether there is one.
export function takeKey() {
  taking ??= new Promise((resolve) => {
    at("key-refused").hidden = !hasKey();
    sessionStorage.removeItem("key");
    at("key").value = "";
    at("key-dialog").returnValue = "";
    at("key-dialog").addEventListener(
      "close",
      () => {
        const key = at("key-dialog").returnValue === "key" && at("key").value.trim();
        if (key) sessionStorage.setItem("key", key);
        taking = null;
        resolve(Boolean(key));
      },
      { once: true },
    );
    at("key-dialog").showModal();
  });
  return taking;
}

export function noAnswer() {
  return new Error(say("no_answer"));
}
