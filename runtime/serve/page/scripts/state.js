// What the parts of the page know together: fields of one object, as a name that is imported cannot be assigned.

export const state = {
  choices: undefined, // what the server offers
  wish: undefined, // what is chosen of it
  granted: undefined, // the wish that the server last had time for
  portrait: 0, // which portrait of the gallery is chosen
  gallery: [], // of portraits: { name, url, file }, the visitor's own with a file
  voiceOnly: false, // whether the visitor wants to be heard alone
  relayOnly: false, // whether media may go by a relay alone: to try it
  stream: null, // camera and microphone
  link: null, // the connection of the moment
  last: null, // id of the last session, which the next one takes the place of
  wanted: false, // whether the visitor wants to be connected
};
