// How a reader goes through a book: opened in a viewer, looked at with our own eyes, everything that goes wrong noted.
//
// SHOTS=folder keeps screenshots.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { bundles } from './bundles.mjs';
import { eyes } from './look.mjs';
import { site } from './site.mjs';
import { world } from './world.mjs';

// Controls that lie over the picture (Mirador's bar) hide a part of a block, a missing tile all of it.
const isWhole = (seen, number) => seen.number === number && seen.worst >= 0.55 && seen.mean >= 0.93;

/** A world with viewers and eyes in it. */
export async function library(modeName, holdings, more = {}) {
  const viewers = await site(bundles());
  const it = await world(modeName, holdings, more);
  it.viewers = viewers.url;
  it.eyes = await eyes(it);
  const { ends } = it;
  it.ends = async () => {
    await ends();
    viewers.close();
  };
  return it;
}

/** The manifest is in the service's cache; all keys are gone. A plain visit of a canvas heals nothing then. */
export async function expired(it, book) {
  // Of the journey before.
  while (await it.heals() > 0) await new Promise((soon) => setTimeout(soon, 50));
  await caches(it, book);
  await it.bedDoes('evict-keys');
}

/** The service has built the manifest of a book. (That writes the keys of all its pages.) */
export async function caches(it, book) {
  const answer = await fetch(`${it.bed.service}/iiif-service/fedora/presentation/${book}`);
  assert.equal(answer.status, 200);
  await answer.arrayBuffer();
}

/** Opens a book, and notes everything that goes wrong. */
export async function open(it, viewer, book, manifest = `${it.name}/iiif-service/fedora/presentation/${book}`) {
  const context = await it.browser.newContext({ viewport: { width: 1400, height: 800 }, ignoreHTTPSErrors: true });
  const tab = await context.newPage();
  const troubles = [];
  const asked = [];
  let [open, last] = [0, Date.now()];
  const moves = (by) => () => { open += by; last = Date.now(); };
  const note = (text) => {
    if (!(viewer.complains ?? []).some((known) => known.test(text))) troubles.push(text);
  };
  // The manifests' logo is on a host of its own, which is not here.
  await tab.route('https://library.tamu.edu/**', (route) => route.fulfill({ contentType: 'image/svg+xml',
    body: '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>' }));
  tab.on('request', moves(1));
  tab.on('requestfinished', moves(-1));
  tab.on('requestfailed', moves(-1));
  tab.on('console', (said) => {
    // What the network log says better has its own note below.
    if (said.type() === 'error' && !said.text().startsWith('Failed to load resource')) note(`console: ${said.text()}`);
  });
  tab.on('pageerror', (error) => note(`page error: ${error}`));
  tab.on('requestfailed', (request) => {
    // A viewer that turns the page breaks off what it no longer needs.
    const why = request.failure()?.errorText;
    if (why !== 'net::ERR_ABORTED') note(`${why}: ${request.url()}`);
  });
  tab.on('response', (response) => {
    if (response.url().startsWith(`${it.name}/iiif/2/`)) asked.push(response.url());
    if (response.status() >= 400) note(`${response.status()}: ${response.url()}`);
  });
  if (it.kept && viewer.onlyByItsId) {
    // As a library's website would keep it. Under another host name the ids in it are others, too.
    const [, base] = it.kept.match(/"@id" *: *"(https?:\/\/[^/]+)/);
    manifest = `${it.name}/iiif-service/fedora/presentation/${book}`;
    await tab.route(manifest, (route) => route.fulfill({ contentType: 'application/json',
      headers: { 'access-control-allow-origin': '*' }, body: it.kept.replaceAll(base, it.name) }));
  }
  await tab.goto(`${it.viewers}/${viewer.name}.html?manifest=${encodeURIComponent(manifest)}`);
  /** Waits until viewer and proxy have ended what they do: what expires in the middle of its own heal stays expired. */
  const rests = async () => {
    const until = Date.now() + 60_000;
    // Of a picture that was taken out of the page, the browser sometimes does not say that its request has ended.
    const busy = () => Date.now() - last < (open > 0 ? 4000 : 400);
    while (busy() || await it.heals() > 0) {
      if (Date.now() > until) throw new Error(`${viewer.name}: ${open} requests and ${await it.heals()} heals do not end`);
      await tab.waitForTimeout(50);
    }
  };
  return { tab, troubles, asked, rests, close: () => context.close() };
}

/** Waits until the page with this number is seen as it should be. */
export async function sees(it, viewer, tab, number, seconds = 40) {
  const deadline = Date.now() + seconds * 1000;
  let seen = { why: 'no picture yet' };
  // Looking is work, too: those who wait for long look less often.
  let pause = 100;
  do {
    if (await viewer.picture(tab).count()) {
      seen = await it.eyes.look(viewer.picture(tab)).catch((error) => ({ why: String(error) }));
      if (isWhole(seen, number)) return seen;
    }
    await tab.waitForTimeout(pause);
    pause = Math.min(1000, pause * 1.2);
  } while (Date.now() < deadline);
  if (process.env.SHOTS) await shot(it, viewer, tab, `failed-${number}`);
  throw new assert.AssertionError({ message: `${viewer.name}: page ${number} is not seen: ${JSON.stringify(seen)}` });
}

export async function shot(it, viewer, tab, what) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await tab.screenshot({ path: join(process.env.SHOTS, `${viewer.name}-${it.modeName.replace(' ', '-')}-${what}.png`) });
}

/** Runs a journey over one book, and asks at the end that nothing went wrong. */
export async function journey(it, viewer, book, walk, manifest) {
  const opened = await open(it, viewer, book, manifest);
  try {
    await walk(opened);
    assert.deepEqual(opened.troubles, [], `${viewer.name}: something went wrong on the way`);
  } catch (error) {
    error.message += `\n${opened.troubles.slice(0, 8).join('\n')}`;
    throw error;
  } finally {
    await opened.close();
  }
}

/** Zooms in, and waits until the page fills the view, and all tiles that were not asked for before have come. */
export async function zooms(it, viewer, { tab, asked, rests }, seconds = 20) {
  const before = asked.length;
  await viewer.zoom(tab, viewer.picture(tab));
  const deadline = Date.now() + seconds * 1000;
  let paper = 0;
  while ((paper < 0.8 || asked.length === before) && Date.now() < deadline) {
    paper = await it.eyes.paper(viewer.picture(tab));
    await tab.waitForTimeout(200);
  }
  await rests();
  await shot(it, viewer, tab, 'zoom');
  assert.ok(paper >= 0.8, `the page fills only ${paper} of the view`);
  assert.ok(asked.length > before, 'zooming asked for no tile');
}

/** Two short books, and manifests of our own: what there is while the canvas service is not. */
export const TROUBLED = {
  holdings: ['--book', 'obj/book:3', '--book', 'obj/gap:3'],
  config: '[presentation]\nmanifests = true\n',
};

/**
 * All was read once; then the canvas service goes down, and the image server forgets. Gives the URL of a book's manifest
 * among those that iiif-mender serves itself.
 */
export async function deadService(it, book) {
  it.kept = await (await fetch(`${it.bed.service}/iiif-service/fedora/presentation/${book}`)).text();
  const tab = await it.browser.newPage({ ignoreHTTPSErrors: true });
  try {
    for (const { identifier } of it.pages) await tab.goto(`${it.name}/iiif/2/${identifier}/info.json`);
    await tab.goto(`${it.name}/manifests/`);
    const listed = JSON.parse(await tab.locator('body').innerText());
    await it.bedDoes('service-down');
    await it.bedDoes('evict-keys');
    await it.bedDoes('restart-images');
    await it.bedDoes('clear-counts');
    return listed.items.find((item) => Object.values(item.label).flat().includes(`Book ${book}`)).id;
  } finally {
    await tab.close();
  }
}
