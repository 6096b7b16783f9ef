// The same journeys where nothing heals: they must fail, or they prove nothing.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TROUBLED, deadService, expired, library, open, sees } from './reading.mjs';
import { VIEWERS } from './viewers.mjs';

/** Page 1 is not seen, and the network log says why. */
async function seesNothing(it, viewer, status, manifest) {
  const { tab, troubles, close } = await open(it, viewer, 'obj/book', manifest);
  try {
    const deadline = Date.now() + 30_000;
    const isSaid = () => troubles.some((trouble) => trouble.startsWith(status));
    while (!isSaid() && Date.now() < deadline) await tab.waitForTimeout(100);
    assert.ok(isSaid(), `no ${status} in the network log: ${troubles}`);
    await assert.rejects(sees(it, viewer, tab, 1, 2));
  } finally {
    await close();
  }
}

describe('not healing', () => {
  let it;
  before(async () => { it = await library('not healing', TROUBLED.holdings, TROUBLED); });
  after(() => it?.ends());

  describe('an expired book', { concurrency: true }, () => {
    before(() => expired(it, 'obj/book'));
    for (const viewer of VIEWERS) {
      test(`${viewer.name} sees nothing where nothing heals`, () => seesNothing(it, viewer, '404'));
    }
  });

  describe('a canvas service that is down', { concurrency: true }, () => {
    let manifest;
    before(async () => { manifest = await deadService(it, 'obj/book'); });
    for (const viewer of VIEWERS) {
      test(`${viewer.name} sees nothing without the service`, () => seesNothing(it, viewer, '500', manifest));
    }
  });
});
