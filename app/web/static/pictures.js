// The page's side of worker.js: calls that are answered later.

export class Pictures {
  #worker = new Worker(new URL("worker.js", import.meta.url));
  #open = new Map();
  #next = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, value, error } }) => {
      const { resolve, reject } = this.#open.get(id);
      this.#open.delete(id);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
  }

  call(call, options, transferred = []) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#open.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, options }, transferred);
    });
  }

  // Frees the pictures; what was asked for is not answered any more.
  close() {
    this.#worker.terminate();
  }
}
