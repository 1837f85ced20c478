// Shows how many mappings run. A text from outside is only ever put in as text.
const state = document.getElementById("state");

try {
  const answer = await fetch("/v1/mappings");
  const status = await answer.json();
  state.textContent = answer.ok ? `${status.worker}: ${status.mappings.length} mappings` : status.message;
} catch {
  state.textContent = "The daemon does not answer.";
}
