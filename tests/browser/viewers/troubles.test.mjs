// What no heal can make quick or whole: a file that is gone, a canvas that takes 20 seconds, a service that is down.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TROUBLED, caches, deadService, expired, journey, library, open, sees, shot, zooms } from './reading.mjs';
import { VIEWERS } from './viewers.mjs';

const SLOW = 20_000;
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

  describe(`slow heals under ${mode}`, { concurrency: true }, () => {
    let it;
    before(async () => {
      it = await library(mode, VIEWERS.flatMap(({ name }) => ['--page-size', '2400:3200', '--single', `obj/slow-${name}`]), {
        // Nothing is quicker than the canvas: the file is not known, and the key comes with it alone.
        config: 'ladder = ["rebuild"]\nconcurrency = 5\n',
      });
      await it.bedDoes('canvas-delay', SLOW);
    });
    after(() => it?.ends());

    for (const viewer of VIEWERS) {
      test(`${viewer.name} waits for a heal of 20 seconds, at the door and in the picture`, async () => {
        const book = `obj/slow-${viewer.name}`;
        const { identifier } = it.pages.find((page) => page.path === book);
        await caches(it, book);
        await it.bedDoes('expire', identifier);
        const began = Date.now();
        await journey(it, viewer, book, async (opened) => {
          await sees(it, viewer, opened.tab, 1, 60);
          assert.ok(Date.now() - began >= SLOW, 'it was seen before its canvas was built');
          await opened.rests();
          await it.bedDoes('expire', identifier);
          const again = Date.now();
          await zooms(it, viewer, opened, 60);
          assert.ok(Date.now() - again >= SLOW, 'tiles came before their canvas was built');
          await shot(it, viewer, opened.tab, 'slow');
        });
      });
    }
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
