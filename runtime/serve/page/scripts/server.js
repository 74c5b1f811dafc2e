// What is asked of the server, and what it refuses.

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
  const error = (await answer.json().catch(() => ({}))).error ?? {};
  if (error.kind === "token") location.assign(`/sign-in${location.hash}`);
  throw new Refusal(error.kind ?? "server", error.message ?? `The server answered ${answer.status}.`);
}
