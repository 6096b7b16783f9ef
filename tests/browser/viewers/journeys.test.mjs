// Five viewers read books whose images have expired, through the real iiif-mender, in Debian's chromium.
//
// By default each journey is short; FULL=1 pages through all 30 pages in both host modes. SHOTS=folder keeps screenshots.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bundles } from './bundles.mjs';
import { eyes } from './look.mjs';
import { site } from './site.mjs';
import { VIEWERS } from './viewers.mjs';
import { world } from './world.mjs';

const full = Boolean(process.env.FULL);
const HOLDINGS = ['--book', 'obj/book:30', '--pdf', 'obj/report:3',
  // Large enough that zooming asks for tiles that the whole page did not need.
  '--page-size', '4800:6400', '--book', 'obj/atlas:2'];
// Controls that lie over the picture (Mirador's bar) hide a part of a block, a missing tile all of it.
const isWhole = (seen, number) => seen.number === number && seen.worst >= 0.55 && seen.mean >= 0.93;

let here;
before(async () => { here = await site(bundles()); });
after(() => here?.close());

/** The manifest is in the service's cache; all keys are gone. A plain visit of a canvas heals nothing then. */
async function expired(it, book) {
  // Of the journey before.
  while (await it.heals() > 0) await new Promise((soon) => setTimeout(soon, 50));
  const answer = await fetch(`${it.bed.service}/iiif-service/fedora/presentation/${book}`);
  assert.equal(answer.status, 200);
  await answer.arrayBuffer();
  await it.bedDoes('evict-keys');
}

/** Opens a book, and notes everything that goes wrong. */
async function open(it, viewer, book) {
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
  await tab.goto(`${here.url}/${viewer.name}.html?manifest=${
    encodeURIComponent(`${it.name}/iiif-service/fedora/presentation/${book}`)}`);
  /** Waits until viewer and proxy have ended what they do: what expires in the middle of its own heal stays expired. */
  const rests = async () => {
    const until = Date.now() + 30_000;
    while (open > 0 || Date.now() - last < 400 || await it.heals() > 0) {
      if (Date.now() > until) throw new Error(`${viewer.name}: ${open} requests and ${await it.heals()} heals do not end`);
      await tab.waitForTimeout(50);
    }
  };
  return { tab, troubles, asked, rests, close: () => context.close() };
}

/** Waits until the page with this number is seen as it should be. */
async function sees(it, viewer, tab, number, seconds = 40) {
  const deadline = Date.now() + seconds * 1000;
  let seen = { why: 'no picture yet' };
  do {
    if (await viewer.picture(tab).count()) {
      seen = await it.eyes.look(viewer.picture(tab)).catch((error) => ({ why: String(error) }));
      if (isWhole(seen, number)) return seen;
    }
    await tab.waitForTimeout(150);
  } while (Date.now() < deadline);
  if (process.env.SHOTS) await shot(it, viewer, tab, `failed-${number}`);
  throw new assert.AssertionError({ message: `${viewer.name}: page ${number} is not seen: ${JSON.stringify(seen)}` });
}

async function shot(it, viewer, tab, what) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await tab.screenshot({ path: join(process.env.SHOTS, `${viewer.name}-${it.modeName.replace(' ', '-')}-${what}.png`) });
}

/** Runs a journey over one book, and asks at the end that nothing went wrong. */
async function journey(it, viewer, book, walk) {
  const opened = await open(it, viewer, book);
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

for (const [mode, pages] of [['same name', full ? 30 : 5], ['another name', full ? 30 : 3]]) {
  describe(mode, () => {
    let it;
    before(async () => {
      it = await world(mode, HOLDINGS);
      it.eyes = await eyes(it);
      // Beside it: the canvas service's own info.json requests come back through us, as they do in life.
      if (mode === 'another name') await it.bedDoes('image-server-url', `http://${it.mender.address}/iiif/2`);
    });
    after(() => it?.ends());

    for (const viewer of VIEWERS) {
      test(`${viewer.name} pages through ${pages} expired pages`, async () => {
        await expired(it, 'obj/book');
        await journey(it, viewer, 'obj/book', async ({ tab, rests }) => {
          await sees(it, viewer, tab, 1);
          for (let number = 2; number <= pages; number++) {
            await rests();
            await it.bedDoes('evict-keys');
            await viewer.next(tab);
            await sees(it, viewer, tab, number);
          }
          await shot(it, viewer, tab, 'book');
        });
      });

      test(`${viewer.name} zooms into a page that expires meanwhile`, async () => {
        await expired(it, 'obj/atlas');
        await journey(it, viewer, 'obj/atlas', async ({ tab, asked, rests }) => {
          await sees(it, viewer, tab, 1);
          await rests();
          await it.bedDoes('evict-keys');
          const before = asked.length;
          await viewer.zoom(tab, viewer.picture(tab));
          const deadline = Date.now() + 20_000;
          let paper = 0;
          while (paper < 0.8 && Date.now() < deadline) paper = await it.eyes.paper(viewer.picture(tab));
          await tab.waitForTimeout(500);
          await shot(it, viewer, tab, 'zoom');
          assert.ok(paper >= 0.8, `the page fills only ${paper} of the view`);
          assert.ok(asked.length > before, 'zooming asked for no tile');
        });
      });

      test(`${viewer.name} shows the pages of a PDF`, async () => {
        await expired(it, 'obj/report');
        await journey(it, viewer, 'obj/report', async ({ tab, asked }) => {
          for (let number = 1; number <= 3; number++) {
            if (number > 1) await viewer.next(tab);
            await sees(it, viewer, tab, number);
          }
          assert.ok(asked.some((url) => /(;|%3B)3\//.test(url)), 'the third page is asked for by ;3');
        });
      });

      if (viewer.thumbnails) {
        test(`${viewer.name} shows thumbnails of expired pages`, async () => {
          await expired(it, 'obj/book');
          await journey(it, viewer, 'obj/book', async ({ tab }) => {
            await sees(it, viewer, tab, 1);
            const small = tab.locator(viewer.thumbnails);
            const deadline = Date.now() + 30_000;
            const loaded = () => small.evaluateAll((all, name) =>
              all.filter((one) => one.currentSrc.startsWith(name) && one.naturalWidth > 1).length, `${it.name}/iiif/2/`);
            while (await loaded() < 4 && Date.now() < deadline) await tab.waitForTimeout(100);
            assert.ok(await loaded() >= 4, `only ${await loaded()} thumbnails were loaded`);
          });
        });
      }
    }
  });
}

describe('not healing', () => {
  let it;
  before(async () => {
    it = await world('not healing', HOLDINGS);
    it.eyes = await eyes(it);
  });
  after(() => it?.ends());

  for (const viewer of VIEWERS) {
    test(`${viewer.name} sees nothing where nothing heals`, async () => {
      await expired(it, 'obj/book');
      const { tab, troubles, close } = await open(it, viewer, 'obj/book');
      try {
        await assert.rejects(sees(it, viewer, tab, 1, 4));
        assert.ok(troubles.some((trouble) => trouble.startsWith('404')), `no 404 in the network log: ${troubles}`);
      } finally {
        await close();
      }
    });
  }
});
