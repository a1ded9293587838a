// A worker for Lucia JS over its session adapter for Redis, with the methods of bench/worker.py.
// node --expose-gc lucia.mjs URL
import { redis as redisSessions } from "@lucia-auth/adapter-session-redis";
import { strict as assert } from "node:assert";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { createClient } from "redis";
import { lucia } from "lucia";

const HOUR = 3_600_000;
const PREPARERS = 64;
const SESSIONS_EACH = 4;
const SAMPLE = 20;

const users = () => ({
	getUser: async (id) => ({ id }),
	setUser: async () => {},
	updateUser: async () => {},
	deleteUser: async () => {},
	getKey: async () => null,
	getKeysByUserId: async () => [],
	setKey: async () => {},
	updateKey: async () => {},
	deleteKey: async () => {},
	deleteKeysByUserId: async () => {}
});

const [url] = process.argv.slice(2);
const client = createClient({ url });
await client.connect();
const authWith = (activePeriod) =>
	lucia({
		env: "DEV",
		adapter: { user: users, session: redisSessions(client) },
		sessionExpiresIn: { activePeriod, idlePeriod: HOUR }
	});
const auth = authWith(HOUR);
const hasty = authWith(-1); // its sessions are due for renewal at once

const creating = (maker) => async (userId) =>
	(await maker.createSession({ userId, attributes: {} })).sessionId;
const userIdOf = (session) => session.user.userId;
const nothing = () => null;
// Each operation's call, and what extracts the value to check from its result.
const calls = {
	create: [creating(auth), Boolean],
	again: [auth.validateSession, userIdOf],
	first: [auth.validateSession, userIdOf],
	renew: [auth.validateSession, (session) => session.fresh],
	revoke: [auth.invalidateSession, nothing]
};
const [create, validate] = [calls.create[0], calls.again[0]];

// The same loop as drive() of bench/drive.py, which keeps no result: change both together.
const drive = async (call, look, { given, wanted }, count, callers) => {
	let next = 0;
	const work = async () => {
		let [done, wrong] = [0, 0];
		while (next < count) {
			const index = next++ % given.length;
			if (look(await call(given[index])) !== wanted[index]) wrong++;
			done++;
		}
		return [done, wrong];
	};
	globalThis.gc();
	const begin = performance.now();
	const counts = await Promise.all(Array.from({ length: callers }, work));
	const seconds = (performance.now() - begin) / 1000;
	assert.equal(counts.reduce((sum, [done]) => sum + done, 0), count);
	assert.equal(counts.reduce((sum, [, wrong]) => sum + wrong, 0), 0, "wrong answers");
	return seconds;
};
const answersOf = async (call, given, callers) => {
	const answers = new Array(given.length);
	let next = 0;
	const work = async () => {
		while (next < given.length) {
			const index = next++;
			answers[index] = await call(given[index]);
		}
	};
	await Promise.all(Array.from({ length: callers }, work));
	return answers;
};
const range = (begin, count) => Array.from({ length: count }, (_, index) => begin + index);
// V8 keeps concatenated strings as trees until they are read. Flatten them outside of the
// measured time.
const flat = (text) => Buffer.from(text, "latin1").toString("latin1");
const hex = (number, length) => flat(number.toString(16).padStart(length, "0"));
const userIds = (count) =>
	range(0, count).map((number) => hex(number % Math.ceil(count / SESSIONS_EACH), 32));
const userOf = async (id) => {
	try {
		return userIdOf(await validate(id));
	} catch (error) {
		assert.equal(error.message, "AUTH_INVALID_SESSION_ID");
		return null;
	}
};
const checkSession = (session, id, userId) => {
	const now = Date.now();
	const active = session.activePeriodExpiresAt.getTime();
	const idle = session.idlePeriodExpiresAt.getTime();
	assert.deepEqual(
		[session.sessionId, session.user.userId, session.state, session.fresh],
		[id, userId, "active", false]
	);
	assert(now < active && active <= now + HOUR);
	assert.equal(idle - active, HOUR);
};

let pool;
let ready;
let begun = 0;
const give = (operation, given, users) => {
	const values = { again: users, first: users, revoke: users.map(nothing) };
	const wanted = values[operation] ?? users.map(() => true);
	if (operation === "again") pool = { given, wanted, users };
	else [ready, begun] = [{ given, wanted, users }, 0];
};
const sessionsOf = (operation, count) => {
	if (operation === "again") return pool;
	const begin = begun;
	begun += count;
	assert(begun <= ready.given.length, "too few sessions are ready");
	return Object.fromEntries(
		Object.entries(ready).map(([name, each]) => [name, each.slice(begin, begun)])
	);
};
const methods = {
	check: async () => {
		const [alice, bob] = new Set(userIds(8));
		const id = await create(alice);
		checkSession(await validate(id), id, alice);
		assert.equal(await userOf(id), alice);
		assert.equal(await userOf(id.slice(0, -1) + (id.endsWith("a") ? "b" : "a")), null);
		await auth.invalidateSession(id);
		assert.equal(await userOf(id), null);
		const due = await creating(hasty)(alice);
		const renewed = await validate(due);
		assert.equal(renewed.fresh, true);
		assert.equal(await userOf(renewed.sessionId), alice);
		const ids = await Promise.all([bob, bob, bob].map(create));
		await auth.invalidateAllUserSessions(bob);
		assert.deepEqual(await Promise.all(ids.map(userOf)), [null, null, null]);
		return Object.keys(calls);
	},
	template: async () => {
		const userId = randomUUID().replaceAll("-", "");
		return [await create(userId), userId];
	},
	take: async (operation, prefix, length, begin, count) => {
		const numbers = range(begin, count);
		const ids = numbers.map((number) => flat(prefix + hex(number, length - prefix.length)));
		give(operation, ids, numbers.map((number) => hex(Math.floor(number / SESSIONS_EACH), 32)));
	},
	prepare: async (operation, count) => {
		const users = userIds(count);
		const maker = creating(operation === "renew" ? hasty : auth);
		const given = operation === "create" ? users : await answersOf(maker, users, PREPARERS);
		give(operation, given, users);
	},
	run: async (operation, callers, count) => {
		const sessions = sessionsOf(operation, count);
		const seconds = await drive(...calls[operation], sessions, count, callers);
		if (operation === "again" || operation === "first") {
			const step = Math.max(1, Math.floor(sessions.given.length / SAMPLE));
			for (let index = 0; index < sessions.given.length; index += step) {
				const id = sessions.given[index];
				checkSession(await validate(id), id, sessions.users[index]);
			}
		}
		return seconds;
	},
	create_all: async (count) => void (await answersOf(create, Array(count).fill("u1"), PREPARERS)),
	revoke_all: async () =>
		drive(auth.invalidateAllUserSessions, nothing, { given: ["u1"], wanted: [null] }, 1, 1)
};

for await (const line of createInterface({ input: process.stdin })) {
	const [method, ...parameters] = JSON.parse(line);
	let answer;
	try {
		answer = { result: (await methods[method](...parameters)) ?? null };
	} catch (error) {
		answer = { error: error.stack };
	}
	console.log(JSON.stringify(answer));
}
await client.quit();
