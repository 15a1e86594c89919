// How much one client may ask for, as edge/limits.py has it: GCRA, one number a bucket, the time when it is full again.
//
// njs shares no memory between requests, so the buckets lie in a file on tmpfs, one a kind: SETS sets of WAYS entries
// and one that newcomers share while all of their set are in use. An entry is a tag (a keyed hash of the client) and a
// time in milliseconds, 8 bytes each. Two workers may now and then overwrite each other's entry of the same client,
// which lets one request more through; a bucket is never forgotten before it is full.
import fs from 'fs';
import crypto from 'crypto';

const WAYS = settings.table.ways;
const ENTRY = 16;
const SET = ENTRY * (WAYS + 1);

function place(bucket) {
    const digest = crypto.createHash('sha256').update(settings.table.key).update(bucket).digest();
    return {set: digest.readUInt32LE(0) % settings.table.sets, tag: 1 + digest.readUIntLE(4, 6)};
}

// Return 0 when a request is served, else the seconds until one is.
function take(bucket, kind) {
    const rate = settings.rates[kind];
    if (!rate) {
        return 0;
    }
    const now = Date.now();
    const where = place(bucket);
    const start = where.set * SET;
    const fd = fs.openSync(settings.table.folder + '/' + kind, 'r+');
    try {
        const entries = Buffer.alloc(SET);
        fs.readSync(fd, entries, 0, SET, start);
        let at = -1, free = -1;
        for (let i = 0; i < WAYS && at < 0; i++) {
            const tag = entries.readDoubleLE(i * ENTRY);
            if (tag === where.tag) {
                at = i;
            } else if (free < 0 && entries.readDoubleLE(i * ENTRY + 8) <= now) {
                free = i;
            }
        }
        at = at >= 0 ? at : free >= 0 ? free : WAYS;
        const known = at === WAYS || entries.readDoubleLE(at * ENTRY) === where.tag;
        let full = known ? entries.readDoubleLE(at * ENTRY + 8) : now;
        // A clock that was set back must not lock anybody out for longer than an empty bucket takes to fill.
        full = full < now ? now : full > now + rate.interval * (rate.burst + 1) ? now : full;
        const wait = full - now - rate.interval * (rate.burst - 1);
        if (wait > 0) {
            return wait / 1000;
        }
        const entry = Buffer.alloc(ENTRY);
        entry.writeDoubleLE(at === WAYS ? 0 : where.tag, 0);
        entry.writeDoubleLE(full + rate.interval, 8);
        fs.writeSync(fd, entry, 0, ENTRY, start + at * ENTRY);
        return 0;
    } finally {
        fs.closeSync(fd);
    }
}

export default {take};
