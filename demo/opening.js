// What the server sends of a picture that was opened goes into the dialog: there, Gradio leaves it alone.
watch("value", () => {
  document.querySelector("#opened .shown").innerHTML = element.innerHTML;
});
