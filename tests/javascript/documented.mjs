// What the documentation of the original's adapter 1.1.0 describes: the default layout, a string for each session and a list for each user.
import { randomBytes } from "node:crypto";

const newId = () => randomBytes(20).toString("hex");

export const documented = (client, activePeriod) => {
	const sessionKey = (id) => `session:${id}`;
	const userKey = (userId) => `userSession:${userId}`;
	const stored = async (id) => JSON.parse((await client.get(sessionKey(id))) ?? "null");
	const read = async (id) => {
		const session = await stored(id);
		if (session === null || session.idle_expires < Date.now()) throw new Error("AUTH_INVALID_SESSION_ID");
		return session;
	};
	// an absolute time where a relative one belongs, as the original gives it: 57 years
	const write = (session) => client.set(sessionKey(session.id), JSON.stringify(session), { EX: Math.floor(session.idle_expires / 1000) });
	const store = async (session) => {
		await Promise.all([client.lPush(userKey(session.user_id), session.id), write(session)]);
		return session.id;
	};
	const made = (userId, attributes) => {
		const active_expires = Date.now() + activePeriod;
		return { id: newId(), user_id: userId, active_expires, idle_expires: active_expires + 1000 * 60 * 60, ...attributes };
	};
	const create = (userId, attributes) => store(made(userId, attributes));
	return {
		create,
		// The two commands of a login go side by side: each by itself, for what may be between them when the second one is late.
		beginCreate: async (userId) => {
			const session = made(userId);
			await client.lPush(userKey(userId), session.id);
			return session;
		},
		endCreate: write,
		read,
		list: async (userId) => {
			const sessions = await Promise.all((await client.lRange(userKey(userId), 0, -1)).map(stored));
			return sessions.filter((session) => session !== null && session.idle_expires >= Date.now()).map((session) => session.id);
		},
		renew: async (id) => create((await read(id)).user_id),
		end: async (id) => {
			const session = await stored(id);
			if (session === null) return;
			await Promise.all([client.del(sessionKey(id)), client.lRem(userKey(session.user_id), 1, id)]);
		},
		endAll: async (userId) => {
			const ids = await client.lRange(userKey(userId), 0, -1);
			await Promise.all([...ids.map((id) => client.del(sessionKey(id))), client.del(userKey(userId))]);
		}
	};
};
