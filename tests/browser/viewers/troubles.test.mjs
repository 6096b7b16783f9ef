// What no heal can make quick or whole: a file that is gone, a canvas that takes 20 seconds, a service that is down.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TROUBLED, caches, deadService, expired, journey, library, open, sees, shot, zooms } from './reading.mjs';
import { VIEWERS } from './viewers.mjs';

// Viewers drop a tile after 30 seconds, and a busy machine needs its own time, too.
const TILES = process.env.FULL ? 20_000 : 10_000;
const GONE = 'obj/gap/pages/page_1';

for (const mode of process.env.FULL ? ['same name', 'another name'] : ['same name']) {
  describe(`a file that is gone under ${mode}`, () => {
    let it;
    before(async () => { it = await library(mode, TROUBLED.holdings, TROUBLED); });
    after(() => it?.ends());

    for (const viewer of VIEWERS) {
      test(`${viewer.name} shows one gap for one missing page, and goes on`, async () => {
        await it.bedDoes('restore-file', GONE);
        await expired(it, 'obj/gap');
        await it.bedDoes('remove-file', GONE);
        const { identifier } = it.pages.find((page) => page.path === GONE);
        const { tab, troubles, rests, close } = await open(it, viewer, 'obj/gap');
        try {
          await sees(it, viewer, tab, 1);
          await viewer.next(tab);
          await rests();
          await assert.rejects(sees(it, viewer, tab, 2, 1));
          await shot(it, viewer, tab, 'gap');
          await viewer.next(tab);
          await sees(it, viewer, tab, 3);
          assert.deepEqual(troubles.filter((trouble) => !trouble.includes(identifier)), []);
          assert.ok(troubles.some((trouble) => trouble.startsWith('404')), 'the page that is gone was asked for');
        } finally {
          await close();
        }
      });
    }
  });

  describe(`slow heals under ${mode}`, () => {
    const readers = {};
    let it;
    before(async () => {
      it = await library(mode, VIEWERS.flatMap(({ name }) => ['--page-size', '2400:3200', '--single', `obj/slow-${name}`]), {
        // Nothing is quicker than the canvas: the file is not known, and the key comes with it alone.
        config: 'ladder = ["rebuild"]\nconcurrency = 5\n',
      });
      for (const { name } of VIEWERS) await caches(it, `obj/slow-${name}`);
    });
    after(() => it?.ends());

    /** The page of this viewer expires; gives what asks how long that was ago. */
    const expires = async ({ name }) => {
      await it.bedDoes('expire', it.pages.find((page) => page.path === `obj/slow-${name}`).identifier);
      const began = Date.now();
      return () => Date.now() - began;
    };

    describe('info.json is held, and viewers wait', { concurrency: true }, () => {
      before(() => it.bedDoes('canvas-delay', 20_000));
      for (const viewer of VIEWERS) {
        test(`${viewer.name} shows a page whose heal takes 20 seconds`, async () => {
          const ago = await expires(viewer);
          const opened = await open(it, viewer, `obj/slow-${viewer.name}`);
          readers[viewer.name] = opened;
          await sees(it, viewer, opened.tab, 1, 90);
          assert.ok(ago() >= 20_000, 'it was seen before its canvas was built');
          await opened.rests();
          assert.deepEqual(opened.troubles, []);
        });
      }
    });

    describe('tiles are held', { concurrency: true }, () => {
      before(() => it.bedDoes('canvas-delay', TILES));
      for (const viewer of VIEWERS) {
        test(`${viewer.name} zooms into a page whose heal takes ${TILES / 1000} seconds`, async () => {
          const opened = readers[viewer.name];
          const ago = await expires(viewer);
          await zooms(it, viewer, opened, 60);
          assert.ok(ago() >= TILES, 'tiles came before their canvas was built');
          await shot(it, viewer, opened.tab, 'slow');
          assert.deepEqual(opened.troubles, []);
          await opened.close();
        });
      }
    });
  });

  describe(`a dead service under ${mode}`, () => {
    let [it, manifest] = [];
    before(async () => {
      it = await library(mode, TROUBLED.holdings, TROUBLED);
      manifest = await deadService(it, 'obj/book');
    });
    after(() => it?.ends());

    describe('five readers at once', { concurrency: true }, () => {
      for (const viewer of VIEWERS) {
        test(`${viewer.name} reads a book although the canvas service is down`, async () => {
          await journey(it, viewer, 'obj/book', async ({ tab }) => {
            for (let number = 1; number <= 3; number++) {
              if (number > 1) await viewer.next(tab);
              await sees(it, viewer, tab, number);
            }
            await shot(it, viewer, tab, 'down');
          }, manifest);
        });
      }
    });

    test('every picture came from its file, and the canvas service was asked for nothing', async () => {
      const { counts } = await it.state();
      assert.equal(counts.visits + counts.rebuilds + counts.register, 0);
      assert.ok(counts.direct > 5 * 3, `only ${counts.direct} direct requests`);
    });
  });
}
