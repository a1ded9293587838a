// Make the password vectors with the code of Lucia JS, npm's lucia-auth 1.8.0. Needs Node 18.
//
//     cd tests/passwords/vectors
//     npm ci --ignore-scripts
//     node make.mjs hashes > passwords.json
//     python make_ours.py | node make.mjs judge > ours.json
//
// passwords.json has hashes of Lucia JS, ours.json hashes of LuciaHash, both with the verdict of
// Lucia JS. The salts are random, so each run makes other hashes.

import { text } from "node:stream/consumers";
import { webcrypto } from "node:crypto";
import {
	generateScryptHash,
	validateScryptHash,
	convertUint8ArrayToHex
} from "./node_modules/lucia-auth/utils/crypto.js";
import { generateRandomString } from "./node_modules/lucia-auth/utils/nanoid.js";
import scrypt from "./node_modules/lucia-auth/scrypt/index.js";

globalThis.crypto ??= webcrypto;

const passwords = {
	"ascii": "correct horse battery staple",
	"one character": "a",
	"1000 characters": "0123456789".repeat(100),
	"1000 characters of four bytes": "\u{1F511}".repeat(1000),
	"spaces": "  two  spaces  ",
	"only spaces": "   ",
	"control characters": "tab\tline\nreturn\r",
	"NUL": "before\u0000after",
	"only NUL": "\u0000",
	"colons and dollars": "s2:salt:$2a$key",
	"upper case": "PASSWORD",
	"Cyrillic": "пароль",
	"Chinese": "密码很长",
	"Arabic": "كلمةالسر",
	"emoji with joiners": "👩‍👩‍👧‍👦🔑",
	"byte order mark": "\uFEFFmark",
	"composed": "\u00C5ngstr\u00F6m",
	"decomposed": "A\u030Angstro\u0308m",
	"Angstrom sign": "\u212Bngstrom",
	"ligature": "of\uFB01ce",
	"full width": "\uFF50\uFF41\uFF53\uFF53",
	"no-break space": "a\u00A0b",
	"superscript": "x\u00B2",
	"long ligature": "\uFDFA"
};

/** Return a hash as releases before "s2:" stored it: SALT:KEY, with a block size of 8. */
const older = async (password) => {
	const salt = generateRandomString(16);
	const bytes = (value) => new TextEncoder().encode(value);
	const key = await scrypt(bytes(password), bytes(salt), { N: 16384, r: 8, p: 1, dkLen: 64 });
	return `${salt}:${convertUint8ArrayToHex(key)}`;
};

const hashes = async () => {
	const rows = [];
	for (const [name, password] of Object.entries(passwords)) {
		const normalized = password.normalize("NFKC");
		const add = async (format, hash) => {
			const original_valid = await validateScryptHash(password, hash);
			rows.push({ name, format, password, hash, original_valid });
		};
		await add("s2", await generateScryptHash(password));
		await add("older", await older(normalized));
		if (normalized !== password) await add("older, not normalized", await older(password));
	}
	return rows;
};

const judge = async () => {
	const rows = [];
	for (const row of JSON.parse(await text(process.stdin))) {
		const valid = (password) => validateScryptHash(password, row.hash);
		rows.push({
			...row,
			original_valid: await valid(row.password),
			original_valid_when_normalized: await valid(row.password.normalize("NFKC")),
			original_valid_for_another: await valid(row.password + "x")
		});
	}
	return rows;
};

const modes = { hashes, judge };
const mode = modes[process.argv[2]];
if (mode === undefined) throw new Error("usage: node make.mjs hashes|judge");
console.log(JSON.stringify(await mode(), null, "\t"));
