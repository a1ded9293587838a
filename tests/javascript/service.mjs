// A service for tests: reads a call as a line of JSON, and writes its answer as a line of JSON.
// Usage: node service.mjs (original|documented) REDIS_URL ACTIVE_PERIOD_MS
import { createInterface } from "node:readline";
import { createClient } from "redis";
import { documented } from "./documented.mjs";
import { original } from "./original.mjs";

const [kind, url, activePeriod] = process.argv.slice(2);
const client = createClient({ url });
await client.connect();
const sessions = { original, documented }[kind](client, Number(activePeriod));

for await (const line of createInterface({ input: process.stdin })) {
	const [method, ...parameters] = JSON.parse(line);
	let answer;
	try {
		answer = { result: (await sessions[method](...parameters)) ?? null };
	} catch (error) {
		answer = { error: error.message };
	}
	console.log(JSON.stringify(answer));
}
await client.quit();
