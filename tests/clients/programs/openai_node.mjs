// The npm package `openai`.

import OpenAI from "openai";
import {
  GUARDED_URL, KEY, LONG, MODEL, QUESTION, raised, run, SCHEMA, TOOL_DESCRIPTION, TOOL_NAME, TOOL_PARAMETERS, URL,
} from "./cases.mjs";

const messages = [{ role: "user", content: QUESTION }];
const connect = (url = URL, apiKey = "none") => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const { completions } = connect().chat;
const asked = { model: MODEL, messages, temperature: 0 };
const tools = [
  { type: "function", function: { name: TOOL_NAME, description: TOOL_DESCRIPTION, parameters: TOOL_PARAMETERS } },
];

await run({
  async chat() {
    return (await completions.create(asked)).choices[0].message.content;
  },

  async stream() {
    const texts = [];
    let tokens = 0;
    for await (const chunk of await completions.create({
      ...asked, stream: true, stream_options: { include_usage: true },
    })) {
      if (chunk.choices[0]?.delta.content) texts.push(chunk.choices[0].delta.content);
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    return { text: texts.join(""), pieces: texts.length, tokens };
  },

  async tools() {
    const chosen = { type: "function", function: { name: TOOL_NAME } };
    const first = await completions.create({ ...asked, tools, tool_choice: chosen, max_tokens: 100 });
    const { message } = first.choices[0];
    const call = message.tool_calls[0];
    const after = await completions.create({
      ...asked,
      messages: [...messages, message, { role: "tool", tool_call_id: call.id, content: "sunny" }],
      tools, tool_choice: "none", max_tokens: 100,
    });
    return {
      name: call.function.name,
      arguments: JSON.parse(call.function.arguments),
      after: after.choices[0].message.content,
    };
  },

  async streamed_tools() {
    const events = completions.stream({
      ...asked, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 100,
    });
    const call = (await events.finalChatCompletion()).choices[0].message.tool_calls[0];
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  },

  async schema() {
    const response_format = { type: "json_schema", json_schema: { name: "city", schema: SCHEMA, strict: true } };
    const answer = await completions.create({ ...asked, max_tokens: 80, response_format });
    return JSON.parse(answer.choices[0].message.content);
  },

  async abort() {
    const chunks = await completions.create({ ...asked, ...LONG, stream: true });
    let number = 0;
    for await (const chunk of chunks) {
      if (chunk && ++number === 5) break;
    }
    chunks.controller.abort();
    return number;
  },

  async errors() {
    const guarded = connect(GUARDED_URL, KEY).chat.completions;
    const short = { ...asked, max_tokens: 1 };
    await guarded.create(short);
    return {
      "unknown model": await raised(() => completions.create({ ...short, model: "gpt-9" })),
      "bad parameter": await raised(() => completions.create({ ...short, top_p: 2 })),
      "wrong key": await raised(() => connect(GUARDED_URL, "wrong").chat.completions.create(short)),
      "too many": await raised(() => guarded.create(short)),
    };
  },
});
