// All that the page says, in two languages.

export const WORDS = {
  en: {
    other: "中文", title: "Rating clips", welcome: "What do you see?",
    begin: "Begin", back: "Back", next: "Next", thanks: "Thank you.", refused: "This door is closed.", why: "It takes a link of invitation. Ask whoever has sent you here for one.",
    finished: "That was the last one. What you have said is kept; you may go back and change it.",
    kept: "What you answered is kept when you press Next. You can stop at any time and go on later where you were.",
    elsewhere: "To go on on another device:", link: "your own link", lost: "That did not reach the server. Check the connection, then try again.",
    absolute: {
      how: "You will see one short clip at a time, made by a computer from a text, and answer three questions about it.",
      text: ["Does it fit the text?", "Who or what, how many, which colours, where, and what happens."],
      motion: ["Does it move well?", "Smoothly and as things move; nothing melts, jumps, or stands still that should not."],
      visual: ["Does it look good?", "Sharp and clean, well lit, and without faults in the picture."],
      answers: { yes: "Yes", no: "No" },
      keys: [["Y", "yes"], ["N", "no"], ["Enter", "next"], ["⌫", "back"], ["Space", "pause"]],
    },
    pairs: {
      how: "You will see two short clips at a time, made from the same text, and say which is better in three respects. “Tie” is as good an answer as any; “Both bad” if neither will do.",
      text: ["Which fits the text better?", "Who or what, how many, which colours, where, and what happens."],
      motion: ["Which moves better?", "Smoothly and as things move; nothing melts, jumps, or stands still that should not."],
      visual: ["Which looks better?", "Sharp and clean, well lit, and without faults in the picture."],
      answers: { left: "A", tie: "Tie", right: "B", bad: "Both bad" },
      keys: [["←", "A"], ["→", "B"], ["↑", "tie"], ["↓", "both bad"], ["Enter", "next"], ["⌫", "back"], ["Space", "pause"]],
    },
  },
  zh: {
    other: "English", title: "视频评价", welcome: "您看到了什么？",
    begin: "开始", back: "上一个", next: "下一个", thanks: "谢谢！", refused: "无法进入", why: "需要邀请链接才能参加，请向邀请您的人索取。",
    finished: "全部完成。您的回答都已保存；如想修改，可以返回。",
    kept: "按“下一个”时保存您的回答。您可以随时停下，以后从原处继续。",
    elsewhere: "换一台设备继续：", link: "您的专属链接", lost: "没有连上服务器，请检查网络后重试。",
    absolute: {
      how: "每次您会看到一段由计算机根据文字生成的短视频，请回答三个问题。",
      text: ["画面符合文字描述吗？", "主体、数量、颜色、地点和发生的事情。"],
      motion: ["运动自然吗？", "流畅、符合常理；没有变形、跳动或不该有的静止。"],
      visual: ["画面质量好吗？", "清晰、干净、光线得当，没有瑕疵。"],
      answers: { yes: "是", no: "否" },
      keys: [["Y", "是"], ["N", "否"], ["Enter", "下一个"], ["⌫", "上一个"], ["空格", "暂停"]],
    },
    pairs: {
      how: "每次您会看到两段由同一段文字生成的短视频，请从三个方面说出哪一段更好。“一样好”与其他回答同等重要；两段都不行时请选“都不好”。",
      text: ["哪一段更符合文字描述？", "主体、数量、颜色、地点和发生的事情。"],
      motion: ["哪一段运动更自然？", "流畅、符合常理；没有变形、跳动或不该有的静止。"],
      visual: ["哪一段画面更好？", "清晰、干净、光线得当，没有瑕疵。"],
      answers: { left: "A", tie: "一样好", right: "B", bad: "都不好" },
      keys: [["←", "A"], ["→", "B"], ["↑", "一样好"], ["↓", "都不好"], ["Enter", "下一个"], ["⌫", "上一个"], ["空格", "暂停"]],
    },
  },
};

export const KEYS = {
  absolute: { y: "yes", n: "no" },
  pairs: { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", ArrowDown: "bad" },
};
