"use strict";

function enableStepping(figure) {
  const control = figure.querySelector(".stepped-control");
  const slider = control.querySelector("input");
  const output = control.querySelector("output");
  const frames = figure.querySelectorAll(".frame");

  function show() {
    frames.forEach((frame, index) => {
      frame.hidden = index !== Number(slider.value);
    });
    const { value } = frames[slider.value].dataset;
    output.textContent = value;
    slider.setAttribute("aria-valuetext", value);
  }

  slider.addEventListener("input", show);
  control.hidden = false;
  // A browser that goes back in history restores the slider's place
  show();
}

document.querySelectorAll(".stepped-figure").forEach(enableStepping);
