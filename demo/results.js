// The results: a click opens one, and when the pen rests, the page asks why the first one was found. Gradio gives
// element, props, trigger and watch.
const REST = 600; // milliseconds without a new answer
document.querySelector("#opened")?.remove(); // of an earlier time that this ran
const dialog = document.createElement("dialog");
dialog.id = "opened";
dialog.ariaLabel = "picture";
dialog.innerHTML = '<div class="inside"><button class="close">Close</button><div class="shown"></div></div>';
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
(document.querySelector(".gradio-container") || document.body).append(dialog);

element.addEventListener("click", (event) => {
  const hit = event.target.closest(".hit");
  if (!hit) return;
  dialog.querySelector(".shown").textContent = "opening ...";
  dialog.showModal();
  trigger("open", { place: Number(hit.dataset.place), id: hit.dataset.id });
});

let timer;
watch("value", () => {
  clearTimeout(timer);
  document.querySelector("#why")?.classList.add("stale");
  if (element.querySelector(".hit")) timer = setTimeout(() => trigger("rest"), REST);
});
