// The input picture: a chosen file is shrunk here and becomes the value, a data URI. Nothing is uploaded.
const LONGEST = 1024, LARGEST = 700000;
const shrunk = async (file) => {
  const picture = await createImageBitmap(file);
  const factor = Math.min(1, LONGEST / Math.max(picture.width, picture.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(picture.width * factor));
  canvas.height = Math.max(1, Math.round(picture.height * factor));
  canvas.getContext('2d').drawImage(picture, 0, 0, canvas.width, canvas.height);
  const whole = canvas.toDataURL('image/png');
  if (whole.length <= LARGEST) return whole;
  let quality = 0.95, uri = whole;
  for (; uri.length > LARGEST && quality > 0.3; quality -= 0.1) uri = canvas.toDataURL('image/jpeg', quality);
  return uri;
};
element.addEventListener('change', async (event) => {
  const file = event.target.files && event.target.files[0];
  if (!file) return;
  event.stopPropagation();
  props.value = await shrunk(file).catch(() => 'no picture');
  trigger('input');
});
element.addEventListener('click', (event) => {
  if (!event.target.closest('button')) return;
  props.value = '';
  trigger('input');
});
