/**
 * Writes the typed client of the home API (`src/net/home/api.ts`) from its description
 * (`docs/reference/home-api.json`). `npm run generate` runs it; a test fails while the client is not what it would write.
 */

interface Schema {
  readonly type?: string;
  readonly $ref?: string;
  readonly description?: string;
  readonly enum?: readonly string[];
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
}

interface Parameter {
  readonly name: string;
  readonly in: "path" | "query";
  readonly required: boolean;
  readonly schema: Schema;
}

type Content = Readonly<Record<string, { readonly schema?: Schema }>>;

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: Content };
  readonly responses: Readonly<Record<string, { readonly content?: Content }>>;
}

export interface Description {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

const JSON_TYPE = "application/json";
const LINES_TYPE = "application/x-ndjson";

/** Returns the client's source; the formatter has yet to go over it. */
export function clientOf(description: Description): string {
  const { schemas } = description.components;
  const head = [
    "/** The typed client of the home API. Made from docs/reference/home-api.json by `npm run generate`: do not edit. */",
    'import { segment } from "@/net/call";',
    'import { fields, oneOf, text } from "@/net/decode";',
    'import { askBytes, askEvents, askJson, askNothing } from "@/net/home/request";',
    'import { flag, listOf, maybe, number, orNull } from "@/net/home/shapes";',
    'import type { HomeTransport } from "@/net/home/transport";',
  ];
  const parts = [head.join("\n")];
  const answered = answeredSchemas(description);
  for (const [name, schema] of Object.entries(schemas)) {
    parts.push(interfaceOf(name, schema));
    if (answered.has(name)) parts.push(readerOf(name, schema));
  }
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods))
      parts.push(functionOf(path, method.toUpperCase(), operation));
  }
  return `${parts.join("\n\n")}\n`;
}

/** Names of what comes out of the API: only that has to be read. */
function answeredSchemas({ paths, components }: Description): Set<string> {
  const found = new Set<string>();
  const visit = (schema: Schema | undefined): void => {
    if (schema === undefined) return;
    if (schema.$ref !== undefined) {
      const name = nameOf(schema.$ref);
      if (found.has(name)) return;
      found.add(name);
      visit(components.schemas[name]);
    }
    visit(schema.items);
    schema.anyOf?.forEach(visit);
    Object.values(schema.properties ?? {}).forEach(visit);
  };
  for (const methods of Object.values(paths)) {
    for (const { responses } of Object.values(methods)) {
      for (const { content } of Object.values(responses)) {
        for (const { schema } of Object.values(content ?? {})) visit(schema);
      }
    }
  }
  return found;
}

function nameOf(reference: string): string {
  return reference.slice(reference.lastIndexOf("/") + 1);
}

function camel(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function typeOf(schema: Schema): string {
  if (schema.$ref !== undefined) return nameOf(schema.$ref);
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  switch (schema.type) {
    case "string":
      return "string";
    case "integer":
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    case "null":
      return "null";
    case "array":
      return `readonly (${typeOf(schema.items ?? {})})[]`;
    case "object":
      return "Readonly<Record<string, unknown>>";
    default:
      throw new Error(`expected a schema of a known type, got ${JSON.stringify(schema)}`);
  }
}

/** An expression that is a function which reads a value. */
function readingOf(schema: Schema): string {
  if (schema.$ref !== undefined) return `read${nameOf(schema.$ref)}`;
  if (schema.anyOf !== undefined) {
    const [inner, none, ...more] = schema.anyOf;
    if (inner === undefined || none?.type !== "null" || more.length > 0)
      throw new Error(`expected something or null, got ${JSON.stringify(schema)}`);
    return `orNull(${readingOf(inner)})`;
  }
  if (schema.enum !== undefined) return `(value: unknown) => oneOf(value, ${JSON.stringify(schema.enum)})`;
  if (schema.type === "array") return `listOf(${readingOf(schema.items ?? {})})`;
  const simple = { string: "text", integer: "number", number: "number", boolean: "flag", object: "fields" };
  const found = simple[schema.type as keyof typeof simple];
  if (found === undefined)
    throw new Error(`expected a schema of a known type, got ${JSON.stringify(schema)}`);
  return found;
}

function isRequired(schema: Schema, member: string): boolean {
  return schema.required?.includes(member) ?? false;
}

function interfaceOf(name: string, schema: Schema): string {
  const members = Object.entries(schema.properties ?? {}).map(
    ([member, kind]) =>
      `  readonly ${member}${isRequired(schema, member) ? "" : "?"}: ${typeOf(kind)}${isRequired(schema, member) ? "" : " | undefined"};`,
  );
  return `/** ${schema.description ?? name} */\nexport interface ${name} {\n${members.join("\n")}\n}`;
}

function readerOf(name: string, schema: Schema): string {
  const members = Object.entries(schema.properties ?? {}).map(([member, kind]) => {
    const got = `document[${JSON.stringify(member)}]`;
    if (!isRequired(schema, member)) return `    ${member}: maybe(${readingOf(kind)})(${got}),`;
    if (kind.enum !== undefined) return `    ${member}: oneOf(${got}, ${JSON.stringify(kind.enum)}),`;
    return `    ${member}: ${readingOf(kind)}(${got}),`;
  });
  return [
    `/** @throws DecodeError */\nexport function read${name}(value: unknown): ${name} {`,
    "  const document = fields(value);",
    `  return {\n${members.join("\n")}\n  };\n}`,
  ].join("\n");
}

function functionOf(path: string, method: string, operation: Operation): string {
  const { operationId, summary, parameters = [], requestBody, responses } = operation;
  const queries = parameters.filter((parameter) => parameter.in === "query");
  const taken = ["home: HomeTransport"];
  for (const { name, in: place } of parameters) if (place === "path") taken.push(`${camel(name)}: string`);
  if (queries.length > 0) {
    const members = queries.map(
      ({ name, required, schema }) => `readonly ${name}${required ? "" : "?"}: ${typeOf(schema)}`,
    );
    const some = queries.some(({ required }) => required);
    taken.push(`query: { ${members.join("; ")} }${some ? "" : " = {}"}`);
  }
  const body = requestBody?.content[JSON_TYPE]?.schema;
  const raw = requestBody !== undefined && body === undefined;
  if (body !== undefined) taken.push(`body: ${typeOf(body)}`);
  if (raw) taken.push("content: Uint8Array");
  taken.push("signal?: AbortSignal");
  const written = path.replace(/{(\w+)}/g, (_, name: string) => `\${segment(${camel(name)})}`);
  const target = written === path ? JSON.stringify(path) : `\`${written}\``;
  const sent = [
    ...(queries.length > 0 ? ["query"] : []),
    ...(body !== undefined ? ["body"] : []),
    ...(raw ? ["content"] : []),
    "signal",
  ];
  const call = (name: string, ...more: string[]) =>
    `${name}(${["home", JSON.stringify(method), target, ...more, `{ ${sent.join(", ")} }`].join(", ")})`;
  const [result, made] = resultOf(responses, call);
  return `/** ${summary} */\nexport function ${camel(operationId)}(${taken.join(", ")}): ${result} {\n  return ${made};\n}`;
}

function resultOf(
  responses: Operation["responses"],
  call: (name: string, ...more: string[]) => string,
): [type: string, expression: string] {
  const content = responses["200"]?.content;
  if (content === undefined) return ["Promise<void>", call("askNothing")];
  const events = content[LINES_TYPE]?.schema;
  if (events !== undefined)
    return [`AsyncGenerator<${typeOf(events)}>`, call("askEvents", readingOf(events))];
  const whole = content[JSON_TYPE]?.schema;
  if (whole !== undefined) return [`Promise<${typeOf(whole)}>`, call("askJson", readingOf(whole))];
  return ["Promise<Uint8Array<ArrayBuffer>>", call("askBytes")];
}
