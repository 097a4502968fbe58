// What every JavaScript client is asked to do: see cases.py.

export const [URL, GUARDED_URL, KEY] = process.argv.slice(2);
export const MODEL = "smollm2";
export const QUESTION = "What is the capital of France?";
export const LONG = { ignore_eos: true, max_tokens: 1900 };
export const SCHEMA = {
  type: "object",
  properties: { city: { type: "string", maxLength: 12 }, big: { type: "boolean" } },
  required: ["city", "big"],
  additionalProperties: false,
};
export const TOOL_NAME = "get_weather";
export const TOOL_PARAMETERS = {
  type: "object",
  properties: { city: { type: "string", maxLength: 12 } },
  required: ["city"],
  additionalProperties: false,
};
export const TOOL_DESCRIPTION = "The weather of a city.";

// Each case; an exception is a result like any other, and the next case still runs.
export async function run(cases) {
  for (const [name, call] of Object.entries(cases)) {
    let result;
    try {
      result = { value: await call() };
    } catch (error) {
      console.error(error);
      result = { error: `${error.name}: ${error.message}` };
    }
    console.log(JSON.stringify({ case: name, ...result }));
  }
}

// The name of the exception that it must raise, and the HTTP status that it carries.
export async function raised(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.status ?? error.statusCode ?? null];
  }
  throw new Error("nothing was raised");
}
