const problem = document.getElementById("problem");

document.getElementById("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const token = document.getElementById("token").value;
  try {
    const answer = await fetch("/sign-in", { method: "POST", body: JSON.stringify({ token }) });
    if (answer.ok) {
      location.replace(`/${location.hash}`); // settings stand behind the #, which no server is told
    } else {
      problem.textContent = (await answer.json()).error.message;
    }
  } catch {
    problem.textContent = "The server cannot be reached.";
  }
});
