// The pages need no script. This one adds a copy button to what's worth copying.
"use strict";
for (const element of navigator.clipboard ? document.querySelectorAll("[data-copy]") : []) {
  const button = document.createElement("button");
  const text = element.textContent.trim();
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + text.split("\n")[0].slice(0, 40));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Can't copy";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  if (element.tagName === "PRE") {
    const holder = document.createElement("div");
    holder.className = "code";
    element.replaceWith(holder);
    holder.append(element, button);
  } else {
    element.append(" ", button);
  }
}
