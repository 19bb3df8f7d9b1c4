// The reason is that of the results shown, again.
watch("value", () => document.querySelector("#why").classList.remove("stale"));
