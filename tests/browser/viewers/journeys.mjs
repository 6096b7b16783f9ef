// What every viewer must be able to do with a book whose images have expired.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { expired, journey, library, sees, shot, zooms } from './reading.mjs';
import { VIEWERS } from './viewers.mjs';

const HOLDINGS = ['--book', 'obj/book:30', '--pdf', 'obj/report:3',
  // Large enough that zooming asks for tiles that the whole page did not need.
  '--page-size', '4800:6400', '--book', 'obj/atlas:2'];

/** All journeys in one mode: `pages` are turned, all thirty with FULL=1. */
export function journeys(mode, pages) {
  if (process.env.FULL) pages = 30;
  describe(mode, () => {
    let it;
    before(async () => {
      it = await library(mode, HOLDINGS);
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
        await journey(it, viewer, 'obj/atlas', async (opened) => {
          await sees(it, viewer, opened.tab, 1);
          await opened.rests();
          await it.bedDoes('evict-keys');
          await zooms(it, viewer, opened);
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
