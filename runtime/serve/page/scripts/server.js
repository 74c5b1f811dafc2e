// What is asked of the server, and what it refuses.

const RESTARTS = 1012; // with which a server closes that is told to end

let asks = 0;

export class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export async function ask(method, path, body, type = "application/json") {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: body === undefined ? {} : { "Content-Type": type } });
  } catch {
    throw new Refusal("network", "The server cannot be reached.");
  }
  if (answer.ok) return answer.status === 204 ? null : answer.headers.get("Content-Type").startsWith("image/") ? answer.blob() : answer.json();
  throw refusal((await answer.json().catch(() => ({}))).error, `The server answered ${answer.status}.`);
}

function refusal(error, otherwise) {
  if (error?.kind === "token") location.assign(`/sign-in${location.hash}`);
  return new Refusal(error?.kind ?? "server", error?.message ?? otherwise);
}

// The web socket of a session, which lasts as long as the session. What is asked gets the reply of its number; `hear`
// gets what the server says by itself, and `gone` a sentence when the socket has closed.
export class Line {
  #socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/api/session`);
  #opened = new Promise((done) => (this.#socket.onopen = done));
  #asked = new Map();
  #last = null; // what the server has refused without having been asked

  constructor(hear, gone) {
    this.#socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "refused") this.#last = message.error;
      if (message.type === "reply") this.#reply(message);
      else hear(message);
    };
    this.#socket.onclose = ({ code }) => {
      const error = this.#last ? refusal(this.#last) : new Refusal("network", "The server cannot be reached.");
      for (const { reject } of this.#asked.values()) reject(error);
      this.#asked.clear();
      gone(code === RESTARTS ? "The server stops." : "The connection was closed.");
    };
  }

  ask(type, more = {}, file = null) {
    const ask = ++asks;
    return new Promise((resolve, reject) => {
      this.#asked.set(ask, { resolve, reject });
      if (this.#socket.readyState > WebSocket.OPEN) return reject(new Refusal("gone", "This session has ended."));
      this.#opened.then(() => {
        this.say({ ask, type, ...more });
        if (file) this.#socket.send(file);
      });
    });
  }

  say(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  close() {
    this.#socket.close();
  }

  #reply({ ask, ok, error }) {
    const asked = this.#asked.get(ask);
    this.#asked.delete(ask);
    if (error) asked?.reject(refusal(error));
    else asked?.resolve(ok);
  }
}
