// What a reader sees: which page of the testbed a screenshot shows, and how much of it is really there.
//
// Pages are paper with a bar code along the top edge (a dark cell, twelve bits, a light one, a dark one), a big number
// and lines (tests/testbed/src/picture.rs). Pixels are looked at in the browser: no image library is needed.

/** Runs inside the browser: finds the page in a screenshot, reads its number, and compares it with `references[number]`. */
async function findPage({ shot, references }) {
  const pixels = async (base64, type) => {
    const bytes = Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type }));
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const pen = canvas.getContext('2d');
    pen.drawImage(bitmap, 0, 0);
    return pen.getImageData(0, 0, bitmap.width, bitmap.height);
  };
  const { data, width, height } = await pixels(shot, 'image/png');
  const isPaper = (at) => Math.abs(data[at] - 244) <= 20 && Math.abs(data[at + 1] - 236) <= 20 &&
    Math.abs(data[at + 2] - 216) <= 20 && data[at] - data[at + 2] >= 14;
  const columns = new Uint32Array(width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) if (isPaper(4 * (y * width + x))) columns[x]++;
  }
  const most = Math.max(...columns);
  if (most < 40) return { number: null, why: 'no paper in sight' };
  const left = columns.findIndex((count) => count > 0.3 * most);
  const right = columns.findLastIndex((count) => count > 0.3 * most);
  const wide = right - left + 1;
  let [top, bottom] = [-1, -1];
  for (let y = 0; y < height; y++) {
    let paper = 0;
    for (let x = left; x <= right; x++) if (isPaper(4 * (y * width + x))) paper++;
    if (paper >= 0.04 * wide) {
      if (top < 0) top = y;
      bottom = y;
    }
  }
  const high = bottom - top + 1;
  const box = { left, top, wide, high };
  const luma = (image, x, y) => {
    const at = 4 * (Math.floor(y) * image.width + Math.floor(x));
    return 0.3 * image.data[at] + 0.59 * image.data[at + 1] + 0.11 * image.data[at + 2];
  };
  const seen = { data, width, height };
  const dark = (cell) => luma(seen, left + (cell + 0.5) * wide / 15, top + high / 40) < 128;
  let number = null;
  if (dark(0) && !dark(13) && dark(14)) {
    number = 0;
    for (let bit = 0; bit < 12; bit++) if (dark(bit + 1)) number += 1 << bit;
  }
  if (!references[number]) return { number, box, why: 'no bar code of ours' };
  const reference = await pixels(references[number], 'image/jpeg');
  // Blocks, so that one tile that is not there counts for what it is.
  const [across, down, points] = [6, 8, 12];
  const blocks = [];
  for (let row = 0; row < down; row++) {
    for (let column = 0; column < across; column++) {
      let same = 0;
      for (let j = 0; j < points; j++) {
        for (let i = 0; i < points; i++) {
          const u = (column + (i + 0.5) / points) / across;
          const v = (row + (j + 0.5) / points) / down;
          const here = 4 * ((top + Math.floor(v * high)) * width + left + Math.floor(u * wide));
          // A pixel's width aside is no gap: viewers place and scale as they like.
          const near = [-1, 0, 1].some((dy) => [-1, 0, 1].some((dx) => {
            const x = Math.min(reference.width - 1, Math.max(0, Math.floor(u * reference.width) + dx));
            const y = Math.min(reference.height - 1, Math.max(0, Math.floor(v * reference.height) + dy));
            const there = 4 * (y * reference.width + x);
            return [0, 1, 2].every((band) => Math.abs(data[here + band] - reference.data[there + band]) <= 60);
          }));
          if (near) same++;
        }
      }
      blocks.push(same / (points * points));
    }
  }
  return { number, box, worst: Math.min(...blocks), mean: blocks.reduce((sum, one) => sum + one, 0) / blocks.length };
}

/** Runs inside the browser: which share of each block of a screenshot has the colours of a page (paper, ink, lines). */
async function findPaper({ shot }) {
  const bytes = Uint8Array.from(atob(shot), (byte) => byte.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const pen = canvas.getContext('2d');
  pen.drawImage(bitmap, 0, 0);
  const { data } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  let ours = 0;
  for (let at = 0; at < data.length; at += 4) {
    // Paper, ink, lines and what lies between them are brownish; backgrounds of viewers are grey, black or white.
    if (data[at] - data[at + 2] >= 8 && data[at] - data[at + 2] <= 50) ours++;
  }
  return ours / (data.length / 4);
}

/** A picture of an element, as it is now: Playwright's own waits for it to stand still first. */
async function shot(place) {
  const clip = await place.boundingBox();
  return (await place.page().screenshot(clip ? { clip } : {})).toString('base64');
}

/** Eyes: a tab of its own in this browser, and the pictures that there should be. */
export async function eyes(world) {
  const tab = await world.browser.newPage();
  const { images } = world.bed;
  const references = {};
  for (const page of world.pages) {
    // By its file URL, which always works at the image server itself.
    const answer = await fetch(`${images}/iiif/2/${page.base64}/full/300,/0/default.jpg`);
    if (!answer.ok) throw new Error(`no reference for page ${page.number}: ${answer.status}`);
    references[page.number] = Buffer.from(await answer.arrayBuffer()).toString('base64');
  }
  return {
    /** What is seen in an element, or on the whole page. */
    async look(place) {
      return tab.evaluate(findPage, { shot: await shot(place), references });
    },
    /** Which share of an element has a page's colours. */
    async paper(place) {
      return tab.evaluate(findPaper, { shot: await shot(place) });
    },
  };
}
