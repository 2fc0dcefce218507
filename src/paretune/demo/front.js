// A point of the front is pressed by mouse, Enter or Space. The plots are drawn anew after each answer: the
// point that had the keyboard's focus gets it back.
let pressed = null;
const press = (event) => {
  const point = event.target.closest('[data-point]');
  if (!point) return;
  event.preventDefault();
  const plots = [...element.querySelectorAll('.pt-plot')];
  pressed = { plot: plots.indexOf(point.closest('.pt-plot')), point: point.dataset.point };
  trigger('click', { point: Number(point.dataset.point) });
};
element.addEventListener('click', press);
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === ' ') press(event);
});
watch('value', () => {
  if (!pressed || (document.activeElement && document.activeElement !== document.body)) return;
  const plot = element.querySelectorAll('.pt-plot')[pressed.plot];
  plot?.querySelector(`[data-point="${pressed.point}"]`)?.focus({ preventScroll: true });
});
